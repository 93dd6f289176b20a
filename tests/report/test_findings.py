from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.report.findings import best_layers, count, findings, holm, number, probability, smallest_p
from tests.report.conftest import encoding_table

THIN = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.452, ".45"), (-0.031, "−.03"), (1.0, "1.00"), (-0.001, ".00"), (np.nan, "n/a"), (2.345, "2.35")],
)
def test_number_follows_the_fields_habit(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.000999, "p = .001"), (0.0001, "p < .001"), (1.0, "p = 1"), (np.nan, "p not computed")]
)
def test_probability_never_says_zero(value, text):
    assert probability(value).replace(THIN, " ") == text


def test_count_knows_one_from_many():
    assert (count(1, "stimulus", "stimuli"), count(1200, "voxel")) == ("1 stimulus", "1,200 voxels")


def test_holm_agrees_with_its_definition():
    # Holm's own procedure: the i-th smallest of m is multiplied by m - i + 1, and never falls below an earlier one.
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).max() == 1


def test_holm_keeps_the_family_wise_rate():
    p = np.random.default_rng(0).uniform(size=(4000, 6))
    wrong = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.035 < wrong < 0.06


def test_best_layer_is_found_per_network_and_over_networks():
    table = pd.concat([encoding_table(), encoding_table({"early": [0.1, 0.9, 0]}, "other")])
    each = best_layers(table, "pearsonr")
    assert list(each["layer"]) == ["conv1", "fc", "fc", "conv2"]
    over = best_layers(table, "pearsonr", by=("region",))
    assert list(over["network"]) == ["other", "demo+none+seed0", "demo+none+seed0"]
    assert list(over["n_layers"]) == [6, 3, 3]


def test_regions_without_any_score_are_not_claimed():
    table = encoding_table()
    table["pearsonr"] = np.nan
    said = findings(table, "pearsonr", verb="predicted", symbol="mean r")
    assert said.items == () and "No layer has a score" in said.lead


def test_without_p_nothing_is_claimed():
    said = findings(encoding_table().assign(p=np.nan), "pearsonr", verb="predicted", symbol="mean r")
    assert "chance" not in said.lead + "".join(said.items)
    assert "p not computed" in said.items[0].replace(THIN, " ")


@pytest.mark.parametrize(
    ("n", "draws", "least"), [(3, None, 0.125), (12, None, 2.0**-12), (20, 999, 0.001), (3, 5000, 0.125)]
)
def test_smallest_p_of_sign_flips(n, draws, least):
    assert smallest_p(n, draws) == pytest.approx(least)


def test_normalised_scores_are_said_where_there_is_a_ceiling():
    table = encoding_table().assign(ceiling=0.5, pearsonr_normalized=lambda rows: rows["pearsonr"] / 0.5)
    table.loc[table["region"] == "late", "pearsonr_normalized"] = np.nan
    said = findings(table, "pearsonr", verb="predicted", symbol="mean r")
    early, late = (next(str(item) for item in said.items if name in str(item)) for name in ("early", "late"))
    assert f"82{THIN}% of the ceiling" in early
    assert "ceiling" not in late


def models(*rows):
    return pd.DataFrame(rows, columns=["network", "layer", "region", "similarity", "p", "p_fwe"])


def test_neither_all_layers_together_nor_a_column_is_the_best_layer():
    table = models(
        ("net", "conv", "V1", 0.2, 0.001, 0.01),
        ("net", "fc", "V1", 0.1, 0.2, 0.5),
        ("net", "weighted", "V1", 0.4, 0.001, np.nan),
        ("column", "category", "V1", 0.3, 0.001, 0.01),
    )
    assert best_layers(table, "similarity")["layer"].tolist() == ["conv", "category"]
    said = findings(table, "similarity", verb="matched", symbol="r")
    lead, (item,) = said.lead.striptags().replace(THIN, " "), said.items
    assert lead == (
        "net matched 1 of 1 region above chance, best in V1 (r = .20, layer conv). "
        "category matched 1 of 1 region above chance, best in V1 (r = .30)."
    )
    assert item.striptags().startswith("In V1, conv matched best")


def test_columns_alone_are_called_columns():
    table = models(("column", "category", "V1", 0.3, 0.001, 0.01), ("column", "size", "V1", 0.1, 0.2, 0.4))
    said = findings(table, "similarity", verb="matched", symbol="r")
    assert said.items[0].striptags().startswith("In V1, column category matched best")
    assert "size matched none of 1 region above chance" in said.lead.striptags()
    none = findings(table.assign(p_fwe=0.5), "similarity", verb="matched", symbol="r")
    assert none.items[0].striptags().startswith("In V1, nothing matched above chance; the highest was column category:")


def test_a_network_wins_only_where_it_is_above_chance():
    rows = [
        ("a", "x", "V1", 0.1, 0.001, 0.01), ("b", "y", "V1", 0.3, 0.001, 0.01),
        # Higher, and no more than chance.
        ("a", "x", "V2", 0.2, 0.4, 0.9), ("b", "y", "V2", 0.1, 0.5, 0.9),
        ("a", "x", "V3", 0.2, 0.4, 0.9), ("b", "y", "V3", 0.1, 0.5, 0.9),
    ]  # fmt: skip
    lead = findings(models(*rows), "similarity", verb="matched", symbol="r").lead.striptags()
    assert lead.endswith("Of 2 networks, b did best in 1 of the 1 region above chance.")
    nowhere = findings(models(*rows[2:]), "similarity", verb="matched", symbol="r").lead.striptags()
    assert "did best" not in nowhere and nowhere.count("none of 2 regions above chance") == 2
    undecided = findings(models(*rows), "similarity", verb="matched", symbol="r", decidable=False)
    assert "best" not in undecided.lead.striptags() and "above" not in "".join(undecided.items)
