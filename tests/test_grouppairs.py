"""Layers against layers over participants: planted order, the formula written out, rates on noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, permutation_test, ttest_1samp

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.grouppairs import pair_tables, pairs

KEYS = [("net", "l1"), ("net", "l2"), ("other", "l1")]


def tables_of(z):
    """Participants' tables of z, shape (participants, layers, regions)."""
    return {
        str(i): pd.DataFrame([
            {"network": network, "layer": layer, "region": f"V{r + 1}", "pearsonr": np.tanh(one[k, r])}
            for k, (network, layer) in enumerate(KEYS) for r in range(z.shape[2])
        ])
        for i, one in enumerate(z)
    }  # fmt: skip


def test_pairs_are_written_out():
    rng = np.random.default_rng(0)
    z = rng.normal(0.2, 0.1, size=(7, 3, 2))
    z[:, 1, 0] += 0.3
    tables = tables_of(z)
    tables["6"] = tables["6"][tables["6"]["region"] == "V1"]
    found = pairs(tables, permutations=100, seed=0).set_index(["region", "network", "layer", "other_network",
                                                              "other_layer"])  # fmt: skip
    assert len(found) == 6
    row = found.loc[("V1", "net", "l1", "net", "l2")]
    difference = z[:, 0, 0] - z[:, 1, 0]
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["t"] == pytest.approx(ttest_1samp(difference, 0).statistic)
    assert row["se"] == pytest.approx(difference.std(ddof=1) / 7**0.5)
    exact = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert row["p"] == pytest.approx(exact.pvalue)
    assert row["p_fwe"] <= 0.05 < found.loc[("V1", "net", "l1", "other", "l1"), "p_fwe"]
    assert found.loc["V2", "n_participants"].tolist() == [6, 6, 6]
    np.testing.assert_allclose(found["q"], false_discovery_control(found["p"]))


def test_networks_share_one_table(tmp_path):
    out = Derivatives(tmp_path)
    z = np.random.default_rng(1).normal(0.2, 0.1, size=(3, 3, 1))
    for label, table in tables_of(z).items():
        for network, rows in table.groupby("network"):
            path = out.path("results", ".tsv", sub=label, task="t", model=network, desc="encoding")
            out.write_table(path, rows, {"Network": network})
    omitted = []
    assert pair_tables(out, ["0", "1", "2"], omitted, permutations=10, seed=0) == 1
    path = out.root / "group" / "task-t_desc-encodingpairs_results.tsv"
    assert set(read_table(path)["other_network"]) == {"net", "other"}
    sidecar = read_json(sidecar_path(path))
    assert sidecar["SmallestAttainableP"] == 0.25 and sidecar["Participants"] == ["0", "1", "2"]
    assert pair_tables(out, ["0", "1", "2"], omitted, permutations=10, seed=0) == 1 and omitted == []


@pytest.mark.slow
def test_rates_on_noise():
    """1,000 groups of 9 participants; three layers of two networks that resemble each other."""
    rejected = 0
    for seed in range(1000):
        rng = np.random.default_rng([3, seed])
        z = 0.1 * rng.normal(size=(9, 3, 1)) + 0.2 * rng.normal(size=(9, 1, 1)) + 0.3
        rejected += pairs(tables_of(z), permutations=100, seed=0)["p_fwe"].min() <= 0.05
    print(f"pairs of layers: {rejected / 1000:.3f}")
    assert 0.03 < rejected / 1000 < 0.07
