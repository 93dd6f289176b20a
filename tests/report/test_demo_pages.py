"""All pages of a finished output: what each of their figures says, how large they are, what they ask for."""

from __future__ import annotations

import re
from html import unescape

import pytest

from bidsdnn import journal


@pytest.fixture(scope="module")
def pages(finished) -> dict[str, str]:
    found = {path.stem: path.read_text(encoding="utf-8") for path in finished.out.glob("*.html")}
    assert set(found) >= {"index", "sub-01", "sub-02", "group"}
    return found


def test_every_caption_says_n_the_test_and_what_error_bars_are(pages):
    captions = [
        (name, unescape(text)) for name, page in pages.items()
        for text in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    ]  # fmt: skip
    assert len(captions) > 30
    for name, caption in captions:
        assert "n = " in caption, (name, caption)
        assert re.search(r"[Nn]o test|p < .05|q < .05|smallest p that", caption), (name, caption)
        assert re.search(r"[Ee]rror bars", caption), (name, caption)
        # Where there is a test, so is what it corrects for.
        if re.search(r"p < .05|q < .05", caption):
            assert re.search(r"family-wise|false discovery|not corrected", caption), (name, caption)


def test_pages_are_small_and_forbid_themselves_to_ask(finished, pages):
    for name, page in pages.items():
        assert (finished.out / f"{name}.html").stat().st_size < 15e6
        assert "default-src 'none'; img-src data:;" in page
        assert not re.search(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?!data:)", page)


def test_the_log_tells_time_and_memory_by_step(finished, pages):
    recalled = journal.recall(journal.latest(finished.out, "sub-01"), "sub-01")
    steps = {step: (how, seconds, mb) for step, how, seconds, mb in recalled["steps"]}
    assert {"activations of the networks", "responses", "encoding", "rsa", "all of it"} <= set(steps)
    assert all(how == "took" and seconds >= 0 and mb > 50 for how, seconds, mb in steps.values())
    assert steps["all of it"][1] >= steps["encoding"][1]
    assert "Time and memory" in pages["sub-01"] and "tests over participants" in pages["group"]


def test_a_step_that_stops_is_named(tmp_path, caplog):
    caplog.set_level("INFO", "bidsdnn")
    one = journal.Journal(tmp_path, "command")
    from bidsdnn.config import resolve_config
    from bidsdnn.report.entries import Log

    config = resolve_config({"bids_dir": tmp_path / "in", "out_dir": tmp_path / "o", "analysis_level": "participant"})
    with one.open(config), one.about("sub-01"):
        with journal.timed("sub-01: responses"):
            pass
        with pytest.raises(ZeroDivisionError), journal.timed("sub-01: encoding"):
            _ = 1 / 0
        with journal.timed("sub-02: encoding"):
            pass
    recalled = journal.recall(one.folder, "sub-01")
    recalled.pop("software")
    log = Log(**recalled)
    assert [step for step, *_ in log.steps] == ["responses", "encoding"] and log.stopped == "encoding"


def test_the_index_links_every_report_and_says_which_failed(finished, pages, tmp_path):
    from bidsdnn.report.index import Report, write_index

    for name in ("sub-01", "sub-02", "group"):
        assert f'<a href="{name}.html">' in pages["index"]
    assert "2 participants; all of them finished" in re.sub("<[^>]+>", "", pages["index"]).replace("\xa0", " ")
    evil = "<img src=x onerror=alert(1)>"
    (tmp_path / "a &b.tsv").write_text("x")
    report = Report(tmp_path / "sub-01.html", "sub-01", "2026-01-01T00:00:00", evil)
    path = write_index(
        tmp_path, name=evil, reports=[report], products={evil: [(tmp_path / "a &b.tsv", evil)]},
        runs=[{"Run": "r", "Command": evil, "Failed": ["sub-01"], "Seconds": 1.0}],
    )  # fmt: skip
    page = path.read_text(encoding="utf-8")
    assert "<img" not in page and page.count("&lt;img src=x") >= 5
    assert 'href="a%20%26b.tsv"' in page and "sub-01 did not finish." in page and "1 did not finish" in page
