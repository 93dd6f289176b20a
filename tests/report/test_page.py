from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bidsdnn.report.page import Entry, Log, page
from tests.report.conftest import ENTITIES, SIDECAR, Output, encoding_table, participant

EVIL = "<img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags, ids and text of a page; raises on unbalanced tags."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")


def write(output, log, level="participant", name="report"):
    path = output.folder / f"{name}.html"
    page(output.entries, path, figures_dir=output.folder / "figures", title="Participant 01", level=level, log=log)
    return path


def read(output, log, **kwargs) -> tuple[str, Outline]:
    html = write(output, log, **kwargs).read_text(encoding="utf-8")
    return html, Outline(html)


@pytest.fixture(scope="module")
def standard(tmp_path_factory) -> tuple[str, Outline]:
    """The page of a participant with everything, read once."""
    log = Log("20260101-000000_x", "bidsdnn in out participant", "seed = 0\n", "2026-01-01 00:00", 12.0)
    output = participant(Output(tmp_path_factory.mktemp("standard")))
    return read(output, log)


def group(output, n, *, q=0.01):
    people = [f"{i:02d}" for i in range(1, n + 1)]
    sidecar = {**SIDECAR, "Permutations": 5000, "Test": "sign flips of the scores, one-sided", "Participants": people,
               "Omitted": ["sub-09 was left out: no results."]}  # fmt: skip
    entities = {"task": "view", "space": "S", "atlas": "demo", "model": "demo+none+seed0"}
    table = encoding_table().assign(n_participants=n, sem=0.02, t=5.0, p=2.0**-n, q=q)
    output.table(table, "encoding", sidecar, **entities)
    for label in people:
        own = encoding_table().assign(p_fwe=0.001, explained_variance=0.1)
        output.table(own, "encoding", SIDECAR, **ENTITIES | {"sub": label}, atlas="demo")
    for stat in ("mean", "t", "p"):
        data = np.random.default_rng(1).uniform(0, 0.4, (6, 7, 5, 3))
        output.map(data, stat, "encoding", sidecar, task="view", space="S", model="demo+none+seed0")
    return output


def test_sections_come_in_the_order_in_which_they_are_read(standard):
    _, outline = standard
    sections = [attrs["id"] for tag, attrs in outline.tags if tag == "section"]
    assert sections == ["found", "maps", "scores", "geometry", "quality", "methods", "log"]
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a" and attrs["href"].startswith("#")]
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert {link[1:] for link in links} <= ids


def test_first_sentences_hold_the_numbers_of_the_table(standard):
    _, outline = standard
    text = " ".join(outline.text.split())
    assert "In late, fc predicted best: r = .45, p(Holm) = .003, 60 voxels, reliability .60." in text
    assert "In none, nothing predicted above chance; the highest was fc: r = .02" in text
    assert "demo+none+seed0 predicted 2 of 3 regions above chance, best in late (r = .45, layer fc)." in text
    assert "Above chance: p < .05 (1,000 label permutations, one-sided), not corrected" in text
    assert "Spearman’s ρ = .36" in text


def test_ids_are_unique_and_references_within_drawings_resolve(standard):
    html, outline = standard
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 20
    used = re.findall(r'xlink:href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert used and set(used) <= set(ids)


def test_page_asks_nothing_of_any_server(standard):
    html, outline = standard
    for tag, attrs in outline.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attrs.get(name) or ""
            allowed = value.startswith(("data:", "#")) or not value
            assert allowed or (tag == "a" and value.startswith("https://doi.org/")), (tag, value)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    policy = next(a["content"] for t, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy.split("script-src")[1]


def test_script_has_the_hash_that_its_policy_names(standard):
    html, _ = standard
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL).group(1)
    assert b64encode(hashlib.sha256(script.encode()).digest()).decode() in html


def test_every_figure_has_a_caption_and_a_text_alternative(standard):
    _, outline = standard
    count = {tag: sum(t == tag for t, _ in outline.tags) for tag in ("figure", "figcaption")}
    assert count["figure"] == count["figcaption"] >= 8
    pictures = [a.get("aria-label") or a.get("alt") for t, a in outline.tags if t in ("svg", "img")]
    assert len(pictures) > 15 and all(pictures)


def test_captions_say_n_test_correction_and_error_bars(standard):
    html, _ = standard
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    for caption in captions:
        assert "n = " in caption
        assert "test" in caption or "permutations" in caption
    profile = next(c for c in captions if "by layer, from shallow to deep" in c)
    assert "n = 12 stimuli; 5 folds over stimuli." in profile
    assert "p &lt; .05 (1,000 label permutations, one-sided), not corrected" in profile and "No error bars" in profile


@pytest.mark.parametrize("evil", [EVIL, '"><script>alert(1)</script>', "a$b_c$ & {{ 7 * 7 }}"])
def test_names_stay_text_wherever_they_come_from(output, log, evil):
    output = participant(output, scores={evil: [0.4, 0.2, 0.1], "late": [0.1, 0.2, 0.3]})
    quality = output.entries[0]
    sidecar = {**quality.sidecar, "StimuliMissing": [evil], "Notes": [evil], "StimulusColumn": evil, "Methods": evil,
               "References": [f"{evil} a reference"], "Software": {evil: evil}, "Dataset": evil}  # fmt: skip
    output.entries[0] = Entry(quality.path, quality.entities, quality.suffix, sidecar)
    log = replace(log, warnings=(evil,), errors=(evil,), tracebacks=(evil,), command=evil, config=evil, run_uuid=evil)
    _, outline = read(output, log)
    assert not [tag for tag, attrs in outline.tags if tag == "img" and attrs.get("src") == "x"]
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
    assert not [attrs for _, attrs in outline.tags if any(name.startswith("on") for name in attrs)]
    assert outline.text.count(evil) > 8


def test_pictures_are_also_files_and_the_same_bytes_each_time(output, log):
    output = participant(output)
    first = write(output, log).read_bytes()
    folder = output.folder / "figures"
    pictures = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert write(output, log).read_bytes() == first
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == pictures
    drawings = [content for name, content in pictures.items() if name.endswith(".svg")]
    assert len(drawings) >= 10 and any(name.endswith(".png") for name in pictures)
    for content in drawings:
        ElementTree.fromstring(content)
        assert b"var(--" not in content


def test_a_page_that_cannot_be_replaced_stays_whole(output, log, monkeypatch):
    path = write(output, log)
    before = path.read_bytes()

    def refuse(self, target):
        raise PermissionError(target)

    monkeypatch.setattr(type(path), "replace", refuse)
    with pytest.raises(PermissionError):
        write(output, replace(log, warnings=("new",)))
    assert path.read_bytes() == before
    assert not [other for other in path.parent.iterdir() if other.name.endswith(".tmp")]


def test_a_failed_participant_gets_a_page_with_its_errors(output, log):
    output = participant(output, network=False)
    del output.entries[1:]
    log = replace(log, errors=("run-2_bold.nii.gz: truncated; copy it again",), tracebacks=("Traceback: <boom>",))
    _, outline = read(output, log)
    text = " ".join(outline.text.split())
    assert "This participant did not finish: run-2_bold.nii.gz: truncated; copy it again" in text
    assert "No score was written. See the errors below." in text and "Traceback: <boom>" in text
    assert "2 runs; 96 trials, 1 dropped" in text


def test_a_participant_with_no_files_at_all_gets_a_page(output, log):
    _, outline = read(output, replace(log, errors=("no bold",)))
    assert "No score was written." in outline.text and "No result says how it was made." in outline.text


def test_without_a_network_the_responses_speak(output, log):
    _, outline = read(participant(output, network=False), log)
    found = " ".join(outline.text.split()).split("Errors, warnings and provenance")[1].split("Data quality")[0]
    assert "Reliability of run 3 was left out." in found
    assert "Responses were most reliable in early (reliability .60)" in found
    assert "Distances between stimuli in the brain" in found and "predicted" not in found


def test_an_unreadable_file_costs_its_figure_and_is_named(output, log):
    output = participant(output)
    broken = next(e for e in output.entries if e.suffix == "statmap" and e.stat == "pearsonr")
    broken.path.write_bytes(broken.path.read_bytes()[:200])
    table = next(e for e in output.entries if e.desc == "rsa")
    table.path.write_text("network\tlayer\nx\ty\n")
    _, outline = read(output, log)
    warnings = outline.text.split("Errors, warnings and provenance")[-1]
    assert f"{broken.path.name} not shown" in warnings and "rsa of atlas demo not shown" in warnings
    assert "region, similarity not there" in warnings
    assert "In late, fc predicted best" in outline.text


def test_missing_anatomy_falls_back_to_the_mean_image_with_a_warning(output, log):
    output = participant(output)
    quality = output.entries[0]
    output.entries[0] = replace(quality, sidecar={**quality.sidecar, "Anatomy": str(output.folder / "none.nii.gz")})
    _, outline = read(output, log)
    assert "background none.nii.gz not shown" in outline.text and "Best layer in each voxel" in outline.text


def test_group_states_n_error_bars_and_the_smallest_p(output, log):
    html, outline = read(group(output, 8), log, level="group")
    text = " ".join(outline.text.split())
    assert "In late, fc predicted best: r = .45 ± .02, p = .004, q = .010, 8 participants, 60 voxels." in text
    caption = next(c for c in re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL) if "from shallow" in c)
    assert (
        "n = 8 participants" in caption
        and "q &lt; .05 (p from all 256 sign flips of the scores, one-sided; " in caption
        and "false discovery rate" in caption
    )
    assert "standard error of the mean" in caption and "The smallest p that 8 participants can give is .004" in caption
    assert "Grey: the participants." in caption
    assert "sub-09 was left out: no results." in text and "01, 02, 03" in text
    # What participants' tables have and the group's has not is neither a column nor what decides.
    assert "above chance" in text and "not computed" not in text and "explained variance" not in text


def test_a_group_too_small_for_significance_describes(output, log):
    _, outline = read(group(output, 3, q=0.125), log, level="group")
    text = " ".join(outline.text.split())
    assert "The smallest p that 3 participants can give is .125: nothing can fall below .05" in text
    assert "above chance" not in text
    assert "In late, fc was highest: r = .45" in text and "predicted best" not in text


def test_two_networks_are_told_apart_and_compared(output, log):
    output = participant(output)
    other = encoding_table({"early": [0.5, 0.1], "late": [0.1, 0.2], "none": [0, 0]}, "other", ["a", "b"])
    output.table(other, "encoding", {**SIDECAR, "Layers": ["a", "b"]}, **ENTITIES, atlas="demo", model="other")
    html, outline = read(output, log)
    text = " ".join(outline.text.split())
    # In `none` nothing is above chance, so that nobody wins there.
    assert "Of 2 networks, other did best in 1 of the 2 regions above chance." in text
    assert "In early, a of other predicted best: r = .50" in text
    assert '<ul class="legend"' in html and "●" in html and "■" in html


def test_two_spaces_get_a_heading_each_and_share_what_has_no_space(output, log):
    output = participant(output)
    quality = output.entries[0]
    output.entries[0] = replace(quality, entities={k: v for k, v in quality.entities.items() if k != "space"})
    output.table(encoding_table(), "encoding", SIDECAR, **ENTITIES | {"space": "T1w"}, atlas="demo", model="m")
    _, outline = read(output, log)
    # In sentences, scores, quality and the network's distances, which have no space; only the first has maps.
    assert outline.text.count("task view, space T1w") == 4 < outline.text.count("task view, space S")
    assert outline.text.count("2 runs; 96 trials") == 2


def test_level_is_one_of_two(output, log):
    with pytest.raises(ValueError, match="level: expected one of participant, group, got 'session'"):
        write(participant(output), log, level="session")


def test_page_of_sixty_regions_stays_small_and_says_what_it_leaves_out(output, log):
    rng = np.random.default_rng(2)
    scores = {f"region{i}": list(rng.uniform(0, 0.5, 3)) for i in range(60)}
    output.table(encoding_table(scores), "encoding", SIDECAR, **ENTITIES, atlas="big", model="demo")
    path = write(output, log)
    text = Outline(path.read_text(encoding="utf-8")).text
    assert "52 more regions with lower scores: see the table of all numbers." in text
    assert "The 12 regions with the highest scores." in text
    assert path.stat().st_size < 2e6


def test_methods_cite_what_the_sidecars_name_once(standard):
    html, outline = standard
    text = " ".join(outline.text.split())
    assert "Ridge regression was fitted (Hoerl & Kennard, 1970; Phipson & Smyth, 2010; Someone, 2020)." in text
    assert text.count("Ridge regression: biased estimation") == 1
    assert text.count("A work of their own.") == 1 and "torch 2.9.1" in text
    assert 'href="https://doi.org/10.1080/00401706.1970.10488634"' in html
    assert "Mumford" not in text


def test_long_tables_are_cut_and_say_so():
    from bidsdnn.report.blocks import MAX_ROWS, data_table

    table = data_table(pd.DataFrame({"layer": ["a"] * (MAX_ROWS + 1), "p": 0.5}), "t")
    assert len(table.rows) == MAX_ROWS and f"of {MAX_ROWS + 1:,} rows" in table.note
    assert table.rows[0] == (("a", "a"), (".500", "0.5"))


def test_matrices_of_a_network_take_the_order_of_the_brain(standard):
    html, _ = standard
    captions = re.findall(r"<figcaption>(Dissimilarity.*?)</figcaption>", html, re.DOTALL)
    assert len(captions) == 2 and all("n = 12 stimuli, in the same order everywhere" in c for c in captions)


def test_motion_of_many_runs_is_drawn_by_participant(output, log):
    runs = [f"task-view_run-{i}" for i in range(1, 16)]
    for label in ("01", "02", "03"):
        table = pd.DataFrame({"run": runs, "mean_fd": 0.1 * int(label), "max_fd": 0.9})
        output.table(table, "quality", **ENTITIES | {"sub": label})
    html, _ = read(output, log, level="group")
    assert "Mean framewise displacement: sub 01 0.1, sub 02 0.2, sub 03 0.3." in html
    assert "of a participant&#39;s runs" in html and "n = 45 runs" in html


def test_runs_are_named_by_what_tells_them_apart(output, log):
    table = pd.DataFrame({"run": ["ses-1_task-view_run-1", "ses-2_task-view_run-1"], "mean_fd": [0.1, 0.2]})
    output.table(table, "quality", **ENTITIES)
    html, _ = read(output, log)
    assert "Mean framewise displacement: ses 1 0.1, ses 2 0.2." in html


def test_reliability_at_the_group_is_the_mean_of_its_participants(output, log):
    group(output, 8)
    for label, value in (("01", 0.4), ("02", 0.6)):
        table = pd.DataFrame({"region": ["early", "late"], "reliability": value})
        output.table(table, "reliability", **ENTITIES | {"sub": label}, atlas="demo")
    _, outline = read(output, log, level="group")
    assert "reliability .50" in outline.text


def test_weak_voxels_are_left_clear_and_the_caption_says_from_where(output, log):
    data = np.full((6, 6, 6, 2), 0.05)
    data[3:, ..., 0] = 0.8
    model = {"model": "m", "task": "view", "space": "S", "sub": "01"}
    output.map(data, "pearsonr", "encoding", {"Layers": ["a", "b"]}, **model)
    output.table(encoding_table(network="m"), "encoding", SIDECAR, **model, atlas="demo")
    _, outline = read(output, log)
    assert "voxels below r = .40, half of the highest, are left clear" in outline.text
    assert "Of the 108 coloured voxels: a in 100%, b in 0%." in outline.text
