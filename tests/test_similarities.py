"""People who saw other stimuli, in another order, are compared over those that they share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_table
from bidsdnn.similarities import among, people

IDS = list("abcdefgh")


@pytest.fixture
def two(tmp_path):
    out = Derivatives(tmp_path)
    points = np.random.default_rng(0).standard_normal((8, 3))
    order = np.array([5, 3, 0, 1, 7, 2, 6])
    path = {label: out.path("relmat", ".h5", sub=label, task="x", stat="correlation") for label in ("01", "02")}
    out.write_rdms(path["01"], {"IT": pdist(points)}, IDS, {})
    noisy = pdist(points[order] + 0.3 * np.random.default_rng(1).standard_normal((7, 3)))
    out.write_rdms(path["02"], {"IT": noisy, "EVC": noisy}, [IDS[k] for k in order], {})
    return out, points, order, noisy


def test_joined_by_name(two):
    out, points, order, noisy = two
    assert people(out, ["01", "02", "03"], comparisons=["spearman"]) == 1
    table = read_table(next((out.root / "group").glob("*_desc-people_results.tsv")))
    # EVC is one participant's alone.
    assert table["region"].tolist() == ["IT"]
    assert table["similarity"].item() == pytest.approx(spearmanr(pdist(points[order]), noisy).statistic, abs=1e-6)
    places = read_table(next((out.root / "group").glob("*_desc-peoplemds_results.tsv")))
    assert places["participant"].tolist() == ["sub-01", "sub-02"]
    assert abs(places["x"].diff().iloc[1]) == pytest.approx(1 - table["similarity"].item(), abs=1e-6)


def test_too_few_shared_stimuli_make_no_table(two, caplog):
    out, points, _, _ = two
    path = out.path("relmat", ".h5", sub="02", task="x", stat="correlation")
    out.write_rdms(path, {"IT": pdist(points[:4])}, ["a", "b", "c", "z"], {})
    people(out, ["01", "02"], comparisons=["spearman"])
    assert "participants share 3 stimuli" in caplog.text
    assert not list((out.root / "group").glob("*"))


def test_among_takes_pairs_by_name():
    rdm = pdist(np.arange(4.0)[:, None] ** 2)
    np.testing.assert_array_equal(among(list("abcd"), rdm, ["d", "a", "c"]), [9, 5, 4])
