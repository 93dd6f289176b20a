"""Feature spaces beside networks: a table of a layer's activations gives what the layer gives."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

pytestmark = pytest.mark.usefixtures("undrawn")


def scores(out, name, what):
    found = read_table(next(out.glob(f"sub-01/func/*atlas-planted_model-{name}_desc-{what}_results.tsv")))
    # Corrections know of the other layers.
    found = found.drop(columns=["network", "p_fwe", "q"], errors="ignore")
    return found[found["layer"].isin(["conv5", "mine"])].drop(columns=["layer"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def table(finished, tmp_path_factory):
    """Activations of one layer in another order."""
    path = tmp_path_factory.mktemp("table") / "t.npz"
    with h5py.File(next((finished.out / "stimuli").glob("*activations.h5"))) as file:
        ids = np.array([one.decode() for one in file["stim_id"][:]])
        np.savez(path, stimulus_id=ids[::-1], values=file["conv5"][:][::-1])
    return path


def test_a_layer_as_a_table_gives_the_layers_scores(finished, table, tmp_path):
    options = [*finished.options, "--participant-label", "01", "--features", f"mine={table}"]
    options[options.index("demo")] = "none"
    assert main([str(finished.bids), str(tmp_path / "out"), "participant", *options]) == 0
    for what in ("encoding", "rsa"):
        expected = scores(finished.out, "demo+none+seed0", what)
        pd.testing.assert_frame_equal(scores(tmp_path / "out", "mine", what), expected, rtol=1e-4)
    page = (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert "No network was asked for" not in page and "mine" in page


def test_a_stimulus_without_a_row_is_named(finished, table, tmp_path, capsys):
    with np.load(table) as arrays:
        np.savez(tmp_path / "t.npz", stimulus_id=arrays["stimulus_id"][1:], values=arrays["values"][1:])
        gone = arrays["stimulus_id"][0]
    options = ["--network", "none", "--participant-label", "01", "--features", f"mine={tmp_path / 't.npz'}"]
    assert main([str(finished.bids), str(tmp_path / "out"), "participant", *options, "--nprocs", "1"]) == 65
    assert f"nothing for stimulus '{gone}'" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("sub-01/**/*.nii.gz"))  # said before responses were estimated


def test_features_are_not_called_as_a_network(finished, table, tmp_path, capsys):
    options = ["--network", "demo", "--features", f"demo={table}"]
    assert main([str(finished.bids), str(tmp_path / "out"), "participant", *options]) == 2
    assert "--features demo: a network has this name" in capsys.readouterr().err
