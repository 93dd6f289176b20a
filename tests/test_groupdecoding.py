"""Participants' decoding scores, joined by row and tested against chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.groupdecoding import decoding_tables, over_participants


def tables(n):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(n):
        score = 0.5 + np.array([0.2, 0.0]) + 0.05 * rng.standard_normal(2)
        classes = {"target": "kind", "decoder": "lda", "balanced_accuracy": score, "pearsonr": np.nan, "chance": 0.5}
        numbers = {"target": "size", "decoder": "ridge", "balanced_accuracy": np.nan, "chance": 0.0,
                   "pearsonr": [0.3 + 0.05 * rng.standard_normal(), 0.05 * rng.standard_normal()]}  # fmt: skip
        whole = [pd.DataFrame({"region": ["A", "B"], **part}) for part in (classes, numbers)]
        # Another order, and in one participant a region less.
        rows.append(pd.concat(whole[:: -1 if k % 2 else 1], ignore_index=True).iloc[: 3 if k == 1 else None])
    return {f"{k:02}": one for k, one in enumerate(rows)}


def test_rows_are_joined_and_tested_against_chance():
    people = tables(8)
    found = over_participants(people, permutations=100, seed=0).set_index(["target", "region"])
    scores = [one.query("target == 'kind' and region == 'A'")["balanced_accuracy"].item() for one in people.values()]
    row = found.loc[("kind", "A")]
    assert row["t"] == pytest.approx(ttest_1samp(scores, 0.5).statistic)
    assert row["p"] == pytest.approx(1 / 256)
    assert row["sem"] == pytest.approx(np.std(scores, ddof=1) / np.sqrt(8))
    assert found.loc[("size", "A"), "p"] == pytest.approx(1 / 256)
    assert found["n_participants"].tolist() == [8, 7, 8, 8]
    assert found.loc[("size", "B"), "p"] > 0.05
    assert (found["p_fwe"] >= found["p"]).all()


def test_tables_on_disk_become_the_groups(tmp_path):
    out = Derivatives(tmp_path)
    for label, table in tables(3).items():
        out.write_table(out.path("results", ".tsv", sub=label, task="x", desc="decoding"), table, {"Layers": []})
    assert decoding_tables(out, ["00", "01", "02", "09"], [], permutations=50, seed=0) == 1
    assert read_table(tmp_path / "group" / "task-x_desc-decoding_results.tsv")["target"].tolist()[:2] == ["kind"] * 2
    assert decoding_tables(out, ["00", "01"], [], permutations=50, seed=0) == 1
    omitted = []
    assert decoding_tables(out, ["00"], omitted, permutations=50, seed=0) == 0
    assert "only sub-00 has it" in omitted[0]
