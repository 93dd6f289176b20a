"""Responses predicted to new pictures: against the encoder fitted by hand to the units, and what is refused."""

from __future__ import annotations

import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bidsdnn.cli import main
from bidsdnn.methods.crossgram import cross_gram, on_rotation
from bidsdnn.methods.models import Ridge
from bidsdnn.methods.reduce import gram, rotation

STEM = "sub-01_task-objects_space-MNI152NLin2009cAsym"
MODEL = "model-demo+none+seed0"


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Three pictures that are in no dataset."""
    folder = tmp_path_factory.mktemp("new")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(256, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"new{number}.png")
    return folder


@pytest.fixture(scope="module")
def out(finished, tmp_path_factory):
    """A copy of the finished output."""
    folder = tmp_path_factory.mktemp("predict") / "bidsdnn"
    shutil.copytree(finished.out, folder)
    return folder


def predict(finished, out, new, *more):
    options = (*finished.options, "--analysis", "predict", "--stimuli-dir", str(new), *more)
    return main([str(finished.bids), str(out), "participant", "--participant-label", "01", *options])


@pytest.fixture(scope="module")
def predicted(finished, out, new):
    assert predict(finished, out, new) == 0
    return out


def maps(out, stat, desc):
    middle = f"_{MODEL}" if desc in ("predict", "encoding", "bestlayer") else ""
    ending = f"_stat-{stat}" if stat else ""
    image = nib.load(out / "sub-01" / "func" / f"{STEM}{middle}{ending}_desc-{desc}_statmap.nii.gz")
    mask = nib.load(out / "sub-01" / "func" / f"{STEM}_desc-brain_mask.nii.gz").get_fdata() > 0
    return image.get_fdata()[mask].T


def sidecar(out, name):
    return json.loads((out / "sub-01" / "func" / name).read_text())


def by_hand(out, seed):
    """Every layer's Ridge, fitted to the units of the stimuli shown and applied to those of the new ones."""
    ids = pd.read_csv(out / "sub-01" / "func" / "sub-01_task-objects_desc-condition_trials.tsv", sep="\t")["stim_id"]
    y = maps(out, "effect", "condition").astype(np.float32)
    found = {}
    with (
        h5py.File(out / "stimuli" / f"{MODEL}_activations.h5") as shown,
        h5py.File(out / "stimuli" / f"{MODEL}_desc-predict_activations.h5") as fresh,
    ):
        rows = [[name.decode() for name in shown["stim_id"]].index(one) for one in ids]
        for layer in (name for name in fresh if "shape" in fresh[name].attrs):
            train = shown[layer][:][rows].astype(np.float64)
            inner = rotation(train @ train.T)
            model = Ridge(seed=seed).fit(inner, y)
            units = train.T @ ((inner / (inner**2).sum(axis=0)) @ model.coef_)
            found[layer] = fresh[layer][:].astype(np.float64) @ units + model.intercept_
    return found


def test_each_voxel_is_predicted_by_its_best_layer(predicted):
    effect = maps(predicted, "effect", "predict")
    about = sidecar(predicted, f"{STEM}_{MODEL}_stat-effect_desc-predict_statmap.json")
    assert about["Stimuli"] == ["new0.png", "new1.png", "new2.png"]
    encoded = sidecar(predicted, f"{STEM}_{MODEL}_stat-pearsonr_desc-encoding_statmap.json")
    assert about["CandidateLayers"] == encoded["Layers"]
    best = maps(predicted, "", "bestlayer")
    layers = by_hand(predicted, encoded["EncoderFit"]["Seed"])
    scored = np.isfinite(best)
    expected = np.array([layers[about["CandidateLayers"][int(k) - 1]][:, v] for v, k in enumerate(best) if k == k]).T
    np.testing.assert_allclose(effect[:, scored], expected, atol=1e-3)
    assert np.isnan(effect[:, ~scored]).all()
    np.testing.assert_array_equal(maps(predicted, "layer", "predict"), best)


def test_ceilings_and_scores_lie_beside_the_predictions(predicted):
    np.testing.assert_array_equal(
        maps(predicted, "noiseceiling", "predict"), maps(predicted, "noiseceiling", "condition")
    )
    np.testing.assert_array_equal(maps(predicted, "pearsonr", "predict"), maps(predicted, "pearsonr", "bestlayer"))
    table = pd.read_csv(
        predicted / "sub-01" / "func" / f"{STEM}_atlas-planted_{MODEL}_desc-predict_results.tsv", sep="\t"
    )
    assert len(table) == 3 * table["region"].nunique()
    assert {"prediction", "pearsonr", "ceiling"} <= set(table.columns)


def test_the_stimuli_that_were_shown_keep_their_activations(finished, predicted, new, caplog):
    name = f"{MODEL}_activations.h5"
    assert (predicted / "stimuli" / name).read_bytes() == (finished.out / "stimuli" / name).read_bytes()
    caplog.set_level("INFO")
    assert predict(finished, predicted, new) == 0
    assert "predict is up to date" in caplog.text


def test_stored_weights_of_one_layer_predict_as_a_new_fit_does(finished, predicted, new, tmp_path):
    again = tmp_path / "bidsdnn"
    shutil.copytree(predicted, again)
    options = (*finished.options, "--participant-label", "01", "--analysis", "encoding", "--save-weights")
    assert main([str(finished.bids), str(again), "participant", *options]) == 0
    with h5py.File(again / "sub-01" / "func" / f"{STEM}_{MODEL}_desc-encoding_weights.h5") as file:
        assert file["alpha/conv3"].dtype == np.float32
        expected = by_hand(again, sidecar(again, f"{STEM}_desc-encoding_results.json")["EncoderFit"]["Seed"])["conv3"]
    assert predict(finished, again, new, "--layer", "conv3") == 0
    scored = np.isfinite(maps(again, "", "bestlayer"))
    np.testing.assert_allclose(maps(again, "effect", "predict")[:, scored], expected[:, scored], rtol=3e-4, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--network", "other=demo"), "holds no encoding from other; there is one of demo+none+seed0"),
        (("--layer", "conv3.pool"), "the encoding from demo+none+seed0 has no such layer"),
        (("--pooling", "max"), "made with other weights, inputs or reductions"),
        (("--analysis", "predict", "rsa"), "predict stands alone"),
        (("--pca", "5"), "--analysis predict with --pca"),
        (("--network", "none"), "name the network of the encoding"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(finished, predicted, new, capsys, options, said):
    assert predict(finished, predicted, new, *options) != 0
    assert said in capsys.readouterr().err


def test_new_items_get_the_coordinates_of_the_rotation():
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(9, 40)), rng.normal(size=(4, 40))
    rotated = rotation(gram(known)[0])
    products = cross_gram(new, known, block=7)
    np.testing.assert_allclose(products, new @ known.T)
    np.testing.assert_allclose(on_rotation(products, rotated) @ rotated.T, products, atol=1e-9)
    np.testing.assert_allclose(on_rotation(known @ known.T, rotated), rotated, atol=1e-9)
    with pytest.raises(ValueError, match="as many columns, got 39 and 40"):
        cross_gram(new[:, 1:], known)
