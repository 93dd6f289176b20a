"""What `bidsdnn.load` gives of a finished output in a volume; surfaces and CIFTI are in test_surfaces."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

import bidsdnn
from bidsdnn.bids.files import read_table
from bidsdnn.errors import MissingInputError, SelectionError

MODEL = "demo+none+seed0"
MAP = {"sub": "01", "stat": "pearsonr", "desc": "encoding"}


@pytest.fixture(scope="module")
def outputs(finished):
    return bidsdnn.load(finished.out)


def test_it_says_what_there_is(outputs):
    said = repr(outputs)
    assert "participants: 01, 02" in said and f"networks: {MODEL}" in said and "encoding" in said


def test_folders_that_are_no_output_are_refused(tmp_path, finished):
    with pytest.raises(MissingInputError, match=r"gone: folder not found; give the out_dir of a run"):
        bidsdnn.load(tmp_path / "gone")
    with pytest.raises(MissingInputError, match="no output of bidsdnn"):
        bidsdnn.load(finished.bids)


def test_nothing_is_written_and_nothing_is_opened_before_it_is_asked_for(finished, monkeypatch):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.out.rglob("*"))
    opened = []
    monkeypatch.setattr("bidsdnn.loading.outputs.load_image", lambda path: opened.append(path))
    monkeypatch.setattr("bidsdnn.spaces.Volume.read", lambda self, path: opened.append(path))
    outputs = bidsdnn.load(finished.out)
    assert len(outputs.files()) > 50
    responses = outputs.responses(sub="01")
    outputs.responses(sub="01", desc="singletrial")
    assert (len(responses), responses.groups[0].values.shape[1]) == (24, responses.space.size)
    assert opened == []
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.out.rglob("*")) == before


def test_tables_are_stacked_with_their_entities(outputs, finished):
    table = outputs.table("encoding")
    assert table.columns[:6].tolist() == ["sub", "task", "space", "atlas", "model", "desc"]
    assert set(table["sub"]) == {"01", "02"} and set(table["desc"]) == {"encoding"}
    one = read_table(next(finished.out.glob("sub-02/func/*_desc-encoding_results.tsv")))
    own = table[table["sub"] == "02"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[one.columns.tolist()], one)
    chosen = outputs.table("encoding", sub=["sub-02"], atlas="planted")
    pd.testing.assert_frame_equal(chosen, own)
    group = outputs.table("encoding", level="group")
    assert (group["sub"] == "").all()
    both = outputs.table("encoding", level=None)
    assert len(both) == len(table) + len(group) and set(both["level"]) == {"participant", "group"}
    assert {"encoding", "rsa", "quality"} <= set(outputs.table()["desc"])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda o: o.table("encodin"), r"no file with desc encodin among .*level-participant; there is .*rsa"),
        (lambda o: o.files(subject="01"), r"'subject' is no entity; did you mean sub"),
        (lambda o: o.files(sub="09"), r"no file with sub 09; there is 01, 02, none"),
        (lambda o: o.responses(), r"2 files of statmap fit; say which by sub: 01, 02"),
        (lambda o: o.activations("resnet18"), rf"no file with model resnet18 .*there is {MODEL}".replace("+", r"\+")),
        (lambda o: o.activations(MODEL, "conv9"), r"no 'conv9' in it; did you mean conv"),
        (lambda o: o.image("conv9", **MAP), r"no 'conv9' in it; did you mean conv"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_what_there_is(outputs, ask, said):
    with pytest.raises(SelectionError, match=said) as error:
        ask(outputs)
    assert "\n" not in str(error.value)


def test_maps_are_images_by_layer(outputs, finished):
    path = next(finished.out.glob("sub-01/func/*stat-pearsonr_desc-encoding_statmap.nii.gz"))
    whole = nib.load(path).get_fdata()
    image = outputs.image(**MAP)
    assert isinstance(image, nib.Nifti1Image) and nib.is_proxy(image.dataobj)
    maps = outputs.maps(**MAP)
    assert list(maps) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    for number, layer in enumerate(maps):
        np.testing.assert_array_equal(maps[layer].get_fdata(), whole[..., number])
        np.testing.assert_array_equal(outputs.image(layer, **MAP).get_fdata(), whole[..., number])
        np.testing.assert_array_equal(maps[layer].affine, image.affine)
    assert list(outputs.maps(sub="01", desc="bestlayer", stat=None)) == ["bestlayer"]
    assert list(outputs.maps(level="group", stat="t", desc="encoding")) == list(maps)
    names = list(outputs.maps(sub="01", stat="effect", desc="condition"))
    assert names == outputs.responses(sub="01").ids


def test_the_masker_gives_the_columns_of_the_tables(outputs):
    masker = outputs.masker(sub="01")
    taken = masker.transform(outputs.maps(**MAP)["conv2"])
    np.testing.assert_array_equal(np.ravel(taken), outputs.values(**MAP)[1])
    assert outputs.mask(sub="01").get_fdata().sum() == outputs.space(sub="01").size


def test_responses_are_patterns(outputs):
    averaged, trials = outputs.responses(sub="01"), outputs.responses(sub="01", desc="singletrial")
    assert set(trials.items["run"]) == {"task-objects_run-1", "task-objects_run-2", "task-objects_run-3"}
    np.testing.assert_allclose(trials.average().values, averaged.values, atol=1e-5)
    raw = outputs.responses(sub="01", desc="singletrial", run=1, standardize=False)
    assert len(raw) == (trials.items["run_label"] == "1").sum()
    assert not np.allclose(raw.values.std(axis=0), 1)


def test_activations_rdms_and_regions_fit_each_other(outputs):
    y = outputs.responses(sub="01")
    x = outputs.activations(MODEL, ["conv1", "fc"]).match(y)
    assert [group.name for group in x.groups] == ["conv1", "fc"] and x.ids == y.ids
    layers = outputs.rdms(level="dnn", model=MODEL)
    there = outputs.activations(MODEL, "fc")
    assert list(layers.ids) == there.ids
    np.testing.assert_allclose(layers.values["fc"], pdist(there.values, "correlation"), atol=1e-5)
    regions, brains = outputs.regions(sub="01"), outputs.rdms(sub="01")
    assert set(regions["planted"]) == set(brains.values)
    early = y.values[:, regions["planted"]["early"]]
    np.testing.assert_allclose(brains.values["early"], pdist(early, "correlation"), atol=1e-5)
    square = brains.square("early")
    first, last = y.ids[0], y.ids[-1]
    assert list(square) == list(square.index) == y.ids and square.loc[first, first] == 0
    assert square.loc[last, first] == square.loc[first, last]
    np.testing.assert_allclose(square.loc[first, last], pdist(early[[0, -1]], "correlation")[0], atol=1e-5)
    with pytest.raises(SelectionError, match="no RDM of 'erly'; did you mean early"):
        brains.square("erly")
    assert outputs.sidecar("relmat", sub="01")["RelationshipMeasure"] == "1 - Pearson correlation"
