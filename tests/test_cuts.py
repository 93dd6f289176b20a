"""``--ablate`` in a whole run: the planted region follows its layer, and the intact network's numbers stay."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from bidsdnn import cli
from tests.conftest import without_pictures

INTACT, CUT = "demo+none+seed0", "demo+none+seed0+without+conv3+shuffled"


@pytest.fixture(scope="module")
def scores(finished, tmp_path_factory) -> dict[str, pd.DataFrame]:
    """Mean r of both participants, layers x regions, of the intact and the cut network."""
    out = tmp_path_factory.mktemp("cut") / "bidsdnn"
    shutil.copytree(finished.out, out)
    asked = ("--analysis", "encoding", "--ablate", "conv3", "--ablate-to", "shuffled", "--layer", "conv1", "conv[35]",
             "--permutations", "5")  # fmt: skip
    with without_pictures():
        status = cli.main([str(finished.bids), str(out), "participant", *finished.options, *asked])
    assert status == 0
    found = {}
    for label in (INTACT, CUT):
        files = sorted(out.glob(f"sub-*/func/*_atlas-planted_model-{label}_desc-encoding_results.tsv"))
        assert len(files) == 2
        table = pd.concat([pd.read_csv(file, sep="\t") for file in files])
        found[label] = table.pivot_table("pearsonr", "layer", "region")
    return found


def test_the_planted_region_is_lost_with_its_layer(scores):
    before, after = scores[INTACT], scores[CUT]
    assert before.loc["conv3", "middle"] > 0.4
    assert abs(after.loc["conv3", "middle"]) < 0.2
    assert after["middle"].max() < before.loc["conv3", "middle"] - 0.2


def test_other_layers_and_regions_stay(scores):
    rows = ["conv1", "conv5"]
    pd.testing.assert_frame_equal(scores[CUT].loc[rows], scores[INTACT].loc[rows])
    assert scores[CUT].loc["conv1", "early"] > 0.3 and scores[CUT].loc["conv5", "late"] > 0.3
