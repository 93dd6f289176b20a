"""Best layers and networks over participants: formulas written out, planted truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.grouplayers import confidence, layer_tables, left_out

PEOPLE = [f"{i:02d}" for i in range(1, 9)]


@pytest.fixture
def out(tmp_path):
    """Eight participants: the second layer is best in V1, and net is ahead of other there."""
    rng = np.random.default_rng(0)
    derivatives = Derivatives(tmp_path)
    for label in PEOPLE:
        means = {"V1": [0.1, 0.5], "V2": [0.2, 0.2]}
        score = [
            {"network": "net", "layer": layer, "region": region, "pearsonr": r + 0.05 * rng.normal()}
            for region, values in means.items() for layer, r in zip(("l1", "l2"), values, strict=True)
        ]  # fmt: skip
        depth = pd.DataFrame({
            "network": "net", "region": ["V1", "V2", "hierarchy"], "depth": [0.9, 0.4, np.nan],
            "hierarchy_score": [np.nan, np.nan, 0.5 + 0.1 * rng.normal()],
        })  # fmt: skip
        pairs = pd.DataFrame({
            "first": "net", "second": "other", "region": ["V1", "V2"],
            "difference": [0.3 + 0.05 * rng.normal(), 0.05 * rng.normal()],
        })  # fmt: skip
        tables = {"encoding": pd.DataFrame(score), "hierarchy": depth, "bestlayer": pd.DataFrame(score)}
        for desc, table in tables.items():
            path = derivatives.path("results", ".tsv", sub=label, task="t", model="net", desc=desc)
            derivatives.write_table(path, table, {})
        derivatives.write_table(derivatives.path("results", ".tsv", sub=label, task="t", desc="networks"), pairs, {})
    return derivatives


def test_the_planted_layer_and_network_are_found(out):
    assert layer_tables(out, PEOPLE, [], permutations=1000, seed=0) == 3
    regions = read_table(out.root / "group" / "task-t_model-net_desc-hierarchy_results.tsv").set_index("region")
    assert regions.loc["V1", "layer"] == "l2"
    assert regions.loc["V1", "confidence"] == 1
    assert regions.loc["V1", "pearsonr"] == pytest.approx(0.5, abs=0.06)
    assert regions.loc["V1", "depth"] == pytest.approx(0.9)
    assert regions.loc["hierarchy", "p"] == pytest.approx(1 / 2**8)
    layers = read_table(out.root / "group" / "task-t_model-net_desc-bestlayer_results.tsv")
    assert layers.groupby("region")["confidence"].sum().tolist() == pytest.approx([1, 1])
    pairs = read_table(out.root / "group" / "task-t_desc-networks_results.tsv").set_index("region")
    assert pairs.loc["V1", "p"] == pytest.approx(2 / 2**8)
    assert pairs.loc["V1", "p_fwe"] <= 0.05 < pairs.loc["V2", "p_fwe"]
    assert (pairs["p_fwe"] >= pairs["p"] - 1e-12).all()


def test_a_participant_is_scored_with_the_others_layer():
    z = np.random.default_rng(1).normal(size=(5, 3, 2))
    chosen, scores = left_out(z)
    for person in range(5):
        best = np.delete(z, person, axis=0).mean(axis=0).argmax(axis=0)
        assert (chosen[person] == best).all()
        assert (scores[person] == z[person, best, [0, 1]]).all()
    np.testing.assert_allclose(confidence(z, samples=50, seed=0).sum(axis=0), 1)


@pytest.mark.slow
def test_left_out_scores_centre_on_zero_and_pairs_hold_their_rate():
    """2,000 seeded groups of 8 participants on noise; the family is three pairs."""
    from bidsdnn.grouplayers import _pairs

    rng = np.random.default_rng(2)
    scores = np.array([left_out(rng.normal(size=(8, 5, 1)))[1].mean() for _ in range(2000)])
    assert abs(scores.mean()) < 4 * scores.std() / np.sqrt(2000)
    rejected = 0
    keys = {"first": ["a", "a", "b"], "second": ["b", "c", "c"], "region": "V1"}
    for _ in range(2000):
        tables = {str(i): pd.DataFrame({**keys, "difference": rng.normal(size=3)}) for i in range(8)}
        rejected += (_pairs(tables, {}, permutations=1000, seed=0)["p_fwe"] <= 0.05).any()
    assert 0.03 <= rejected / 2000 <= 0.07


def test_who_lacks_a_region_or_names_networks_in_another_order_takes_part_in_the_rest(out):
    one, other = (
        out.path("results", ".tsv", sub=PEOPLE[0], task="t", model="net", desc=desc)
        for desc in ("encoding", "hierarchy")
    )
    for path in (one, other):
        table = read_table(path)
        out.write_table(path, table[table["region"] != "V2"], {})
    turned = out.path("results", ".tsv", sub=PEOPLE[1], task="t", desc="networks")
    table = read_table(turned).rename(columns={"first": "second", "second": "first"})
    out.write_table(turned, table.assign(difference=-table["difference"]), {})
    gone = out.path("results", ".tsv", sub=PEOPLE[0], task="t", desc="networks")
    out.write_table(gone, read_table(gone).query("region == 'V1'"), {})
    layer_tables(out, PEOPLE, [], permutations=100, seed=0)
    layers = read_table(out.root / "group" / "task-t_model-net_desc-bestlayer_results.tsv")
    assert layers.groupby("region")["n_participants"].max().to_dict() == {"V1": 8, "V2": 7}
    np.testing.assert_allclose(layers.groupby("region")["chosen"].sum(), 1)
    regions = read_table(out.root / "group" / "task-t_model-net_desc-hierarchy_results.tsv").set_index("region")
    assert regions.loc["V2", "layer"] in ("l1", "l2")
    assert regions.loc["hierarchy", "p_smallest"] == 1 / 2**8
    pairs = read_table(out.root / "group" / "task-t_desc-networks_results.tsv").set_index("region")
    assert pairs["n_participants"].to_dict() == {"V1": 8, "V2": 7}
    assert pairs.loc["V1", "difference"] == pytest.approx(0.3, abs=0.06)
    assert pairs["p_smallest"].to_dict() == {"V1": 2 / 2**8, "V2": 2 / 2**7}
