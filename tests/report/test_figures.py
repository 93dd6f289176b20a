from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from bidsdnn.report import drawing, figures
from bidsdnn.report.entries import Entry, Log, listed, read_table, square
from tests.report.conftest import encoding_table

SERIES = [f"--series{i}" for i in range(len(drawing.SERIES))]


def pixels_of(panel):
    from io import BytesIO

    from matplotlib.image import imread

    return imread(BytesIO(panel.content))


def test_square_agrees_with_scipy():
    distances = pdist(np.random.default_rng(0).random((7, 3)))
    np.testing.assert_array_equal(square(distances), squareform(distances))


def test_square_refuses_what_is_no_triangle():
    with pytest.raises(ValueError, match="condensed: expected n"):
        square(np.zeros(5))


def test_rdm_pictures_follow_the_order_that_is_asked():
    distances = pdist(np.random.default_rng(0).random((6, 3)))
    order = np.array([3, 1, 5, 0, 2, 4])
    shuffled = squareform(squareform(distances)[np.ix_(order, order)])
    (given,) = figures.rdm_pictures({"a": distances}, stem="x", kept=order, kind="layer")
    (expected,) = figures.rdm_pictures({"a": shuffled}, stem="x", kind="layer")
    assert given.content == expected.content
    pixels = pixels_of(given)
    np.testing.assert_array_equal(pixels, pixels.transpose(1, 0, 2))


def test_rdm_pictures_depend_on_ranks_only_and_leave_gaps_empty():
    distances = pdist(np.random.default_rng(0).random((6, 3)))
    (one,) = figures.rdm_pictures({"a": distances}, stem="x", kind="layer")
    (other,) = figures.rdm_pictures({"a": np.exp(5 * distances)}, stem="x", kind="layer")
    assert one.content == other.content
    distances[0] = np.nan
    (gap,) = figures.rdm_pictures({"a": distances}, stem="x", kind="layer")
    assert pixels_of(gap)[0, 1, 3] == 0 and pixels_of(gap)[0, 2, 3] == 1


def test_profiles_name_every_score_for_those_who_cannot_see():
    panels = figures.profiles(encoding_table(), "pearsonr", stem="x", symbol="mean r")
    assert [panel.name for panel in panels] == ["x_01+early.svg", "x_02+late.svg", "x_03+none.svg"]
    assert panels[1].alt == "mean r by layer in late. demo+none+seed0: conv1 .08, conv2 .22, fc .45."


def test_profiles_fill_the_points_that_are_significant():
    table = encoding_table()
    some = figures.profiles(table, "pearsonr", stem="x", symbol="r")[0].content.decode()
    every = figures.profiles(table.assign(p=0.001), "pearsonr", stem="x", symbol="r")[0].content.decode()
    hollow = f"fill: {drawing.PAPER}; stroke: {drawing.SERIES[0]}"
    assert hollow not in every
    early = table[table["region"] == "early"].assign(p=[0.001, 0.2, 0.5])
    mixed = figures.profiles(early, "pearsonr", stem="x", symbol="r")[0].content.decode()
    assert mixed.count(hollow) == 2 and hollow not in some


def test_heat_map_stars_what_is_significant_and_says_where_nothing_is_known():
    table = encoding_table()
    table.loc[0, "pearsonr"] = np.nan
    panel = figures.heat_map(table, "pearsonr", stem="x", symbol="mean r", top=0.5, named=False)
    text = panel.content.decode()
    assert ">n/a<" in text and ">.45*<" in text and ">.02<" in text and panel.label == ""


def test_drawings_follow_the_theme_inside_the_page_only():
    panel = figures.dots({"a": 1.0, "b": 2.0}, stem="x", label="units", alt="Things", upper={"a": 2, "b": 3}, limit=1.5)
    assert drawing.INK in panel.content.decode() and "var(--" not in panel.content.decode()
    assert "var(--ink)" in panel.markup and drawing.INK not in panel.markup
    assert "<metadata" not in panel.markup and panel.alt == "Things: a 1, b 2."


def test_text_in_figures_can_be_read_in_light_and_dark():
    rules = re.findall(r"(:root[^{]*)\{([^}]*)\}", drawing.theme_css())
    light, *dark = [dict(pair.split(":") for pair in body.split(";") if pair) for _, body in rules]
    # What the system wishes and what the reader chooses look the same.
    assert [selector for selector, _ in rules] == [
        ":root", ":root[data-theme=dark]", ":root:not([data-theme=light])"
    ] and dark[0] == dark[1] and dark[0].keys() == light.keys()  # fmt: skip
    texts = {"--paper": ["--ink", "--muted", "--link", "--bad", "--warn", *SERIES], "--soft": ["--ink", "--link"],
             "--bad-soft": ["--bad", "--link"], "--warn-soft": ["--warn", "--ink"]}  # fmt: skip
    for theme in (light, dark[0]):
        for behind, names in texts.items():
            for name in names:
                assert drawing.contrast(theme[name], theme[behind]) >= 4.5, (name, behind)
        # Lines of single participants are read too.
        assert drawing.contrast(theme["--ghost"], theme["--paper"]) >= 3
        for i in range(len(drawing.HEAT)):
            assert drawing.contrast(theme[f"--heat{i}"], theme[f"--heattext{i}"]) >= 4.5, i


@pytest.mark.parametrize("dark", [False, True])
def test_series_are_told_apart_by_the_colour_blind(dark):
    # Viénot, Brettel and Mollon (1999): what is left of a colour without long (protan) or middle (deutan) cones.
    left = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }
    series = drawing._SERIES_DARK if dark else drawing.SERIES
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in series]) ** 2.2
    for matrix in left.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(3, 1)]
        # The first three, which most pages stop at; all six have a marker of their own.
        assert apart.min() > 0.12
    assert len(set(drawing.MARKERS)) == len(drawing.SERIES)


def test_contrast_is_that_of_wcag():
    assert drawing.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert drawing.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_shades_grow_evenly():
    for shades in (drawing.HEAT, drawing._HEAT_DARK):
        steps = np.diff([drawing.luminance(colour) for colour in shades])
        assert (steps < 0).all() or (steps > 0).all()


@pytest.mark.parametrize(("text", "label"), [("a/../b c", "a+b+c"), ("<>", "x"), ("é" * 3, "x"), ("v1", "v1")])
def test_slugs_are_labels_that_bids_allows(text, label):
    assert drawing.slug(text) == label


def test_names_are_shortened_in_their_middle():
    assert drawing.shorten("features.denseblock4.denselayer16", 15) == "feature…layer16"
    assert drawing.shorten("fc", 15) == "fc"


def test_tables_keep_names_as_text_and_read_missing_numbers(tmp_path):
    (tmp_path / "t.tsv").write_text("region\tlayer\tp\n001\tNA\tn/a\nnan\tfc\t0.5\n")
    table = read_table(tmp_path / "t.tsv")
    assert list(table["region"]) == ["001", "nan"] and list(table["layer"]) == ["NA", "fc"]
    assert np.isnan(table["p"][0]) and table["p"][1] == 0.5


def test_tables_with_words_for_numbers_are_refused(tmp_path):
    (tmp_path / "t.tsv").write_text("region\tp\nearly\thigh\n")
    with pytest.raises(ValueError, match=r"t\.tsv: column `p` expected numbers"):
        read_table(tmp_path / "t.tsv")


def test_sidecars_are_listed_once_and_logs_default_to_nothing(tmp_path):
    entries = [Entry(tmp_path, {}, "results", {"Notes": note}) for note in ("a", ["a", "b"], None)]
    assert listed(entries, "Notes") == ["a", "b"]
    assert Log("u", "c", "", "today", None).errors == ()
