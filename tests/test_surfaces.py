"""The demo as volume, surface and CIFTI, from file names to results, group maps and reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import bidsdnn
from bidsdnn.bids.files import read_table
from bidsdnn.cli import main
from bidsdnn.demo import write_demo
from bidsdnn.errors import SelectionError
from bidsdnn.spaces import Cifti, Surface
from tests.conftest import without_pictures
from tests.test_demo import validate
from tests.test_pipeline import PLANTED, bests

MNI, SURFACE, CIFTI = "MNI152NLin2009cAsym", "fsaverage:den-3k", "fsLR:den-5k"
ATLASES = {
    MNI: f"tpl-{MNI}/anat/tpl-{MNI}_atlas-planted_dseg.nii.gz",
    SURFACE: "tpl-fsaverage/anat/tpl-fsaverage_hemi-L_atlas-planted_den-3k_dseg.label.gii",
    CIFTI: "tpl-fsLR/anat/tpl-fsLR_atlas-planted_den-5k_dseg.dlabel.nii",
}
STEMS = {
    MNI: f"space-{MNI}_atlas-planted",
    SURFACE: "space-fsaverage_atlas-planted_den-3k",
    CIFTI: "space-fsLR_atlas-planted_den-5k",
}
MODEL = "model-demo+none+seed0"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_demo(
        tmp_path_factory.mktemp("surfaces") / "bids", participants=2, stimuli=24, runs=2, voxel_size=8.0, noise=0.2,
        spaces=("volume", "surface", "cifti"),
    )  # fmt: skip


def options(dataset: Path, space: str, *more: str) -> list[str]:
    atlas = dataset / "derivatives" / "planted" / ATLASES[space]
    return ["--space", space, "--network", "demo", "--atlas", str(atlas), "--permutations", "19", "--nprocs", "1",
            *more]  # fmt: skip


@pytest.fixture(scope="module")
def out(dataset, tmp_path_factory) -> Path:
    """Output of the three spaces in one folder: of the volume, of one participant only."""
    folder = tmp_path_factory.mktemp("out") / "bidsdnn"
    first = ("--participant-label", "01")
    with without_pictures():
        assert main([str(dataset), str(folder), "participant", *options(dataset, MNI), *first]) == 0
        for space in (SURFACE, CIFTI):
            assert main([str(dataset), str(folder), "participant", *options(dataset, space)]) == 0
    assert main([str(dataset), str(folder), "participant", "--reports-only", *first]) == 0
    assert main([str(dataset), str(folder), "group", "--network", "demo"]) == 0
    return folder


def func(out: Path, name: str, sub: str = "01") -> Path:
    return out / f"sub-{sub}" / "func" / f"sub-{sub}_task-objects_{name}"


@pytest.mark.parametrize("space", [SURFACE, CIFTI])
@pytest.mark.parametrize("desc", [f"{MODEL}_desc-encoding", f"{MODEL}_desc-rsa", "desc-reliability"])
def test_the_same_data_give_the_same_scores_in_every_space(out, space, desc):
    here, volume = (read_table(func(out, f"{STEMS[s]}_{desc}_results.tsv")) for s in (space, MNI))
    assert here.columns.tolist() == volume.columns.tolist()
    for column in volume:
        if pd.api.types.is_numeric_dtype(volume[column]):
            np.testing.assert_allclose(here[column], volume[column], atol=1e-5)
        else:
            assert here[column].tolist() == volume[column].tolist()
    assert set(here["region"]) == {"early", "middle", "late", "none"}


@pytest.mark.parametrize("space", [SURFACE, CIFTI])
def test_the_planted_layers_are_found(out, space):
    for scores in (
        read_table(func(out, f"{STEMS[space]}_{MODEL}_desc-encoding_results.tsv", "02")),
        read_table(out / "group" / f"task-objects_{STEMS[space]}_{MODEL}_desc-encoding_results.tsv"),
    ):
        assert PLANTED.items() <= bests(scores, "pearsonr").items()
        assert scores.loc[scores["region"] == "none", "pearsonr"].abs().max() < 0.3


def test_the_validator_finds_no_error(out):
    assert validate(out) == []


def test_both_hemispheres_carry_the_same_maps_and_sidecars(out):
    left = func(out, f"hemi-L_space-fsaverage_den-3k_{MODEL}_stat-pearsonr_desc-encoding_statmap.func.gii")
    right = left.with_name(left.name.replace("hemi-L", "hemi-R"))
    images = [nib.load(path) for path in (left, right)]
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    for image, structure in zip(images, ("CortexLeft", "CortexRight"), strict=True):
        assert len(image.darrays) == len(layers)
        assert image.meta["AnatomicalStructurePrimary"] == structure
    sidecars = [
        json.loads(path.with_name(path.name.replace(".func.gii", ".json")).read_text()) for path in (left, right)
    ]
    assert sidecars[0] == sidecars[1]
    assert sidecars[0]["Layers"] == layers and "Density" in sidecars[0] and "SkullStripped" not in sidecars[0]
    mask = Surface.from_masks([func(out, "hemi-L_space-fsaverage_den-3k_desc-brain_mask.label.gii")])
    assert np.isnan(images[0].darrays[0].data[~mask.inside[0]]).all()
    assert not [path for path in out.rglob("*hemi-*") if path.name.endswith((".tsv", ".h5", "_results.json"))]


def test_cifti_maps_are_named(out):
    path = func(out, f"space-fsLR_den-5k_{MODEL}_stat-pearsonr_desc-encoding_statmap.dscalar.nii")
    names = nib.load(path).header.get_axis(0).name.tolist()
    assert names == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    effect = nib.load(func(out, "space-fsLR_den-5k_stat-effect_desc-condition_statmap.dscalar.nii"))
    trials = read_table(func(out, "desc-condition_trials.tsv"))
    assert effect.header.get_axis(0).name.tolist() == trials["stim_id"].tolist()


def test_the_atlas_is_written_as_it_was_used(out, dataset):
    given = dataset / "derivatives" / "planted"
    left = func(out, "hemi-L_space-fsaverage_atlas-planted_den-3k_dseg.label.gii")
    mask = Surface.from_masks([func(out, "hemi-L_space-fsaverage_den-3k_desc-brain_mask.label.gii")])
    points = Cifti.from_files([func(out, "space-fsLR_den-5k_desc-brain_mask.dlabel.nii")])
    dense = func(out, f"{STEMS[CIFTI]}_dseg.dlabel.nii")
    for space, written, key in ((mask, left, SURFACE), (points, dense, CIFTI)):
        ours, theirs = space.regions(written), space.regions(given / ATLASES[key])
        assert list(ours) == ["early", "middle", "late", "none"] == list(theirs)
        assert all((ours[name] == theirs[name]).all() and ours[name].any() for name in ours)


@pytest.mark.parametrize(
    ("name", "extension"), [("hemi-L_{}_den-3k", ".func.gii"), ("{}_den-5k", ".dscalar.nii")], ids=["surface", "cifti"]
)
def test_group_maps_average_the_participants(out, name, extension):
    space = "fsaverage" if "hemi" in name else "fsLR"
    stem = f"{MODEL}_stat-{{}}_desc-encoding_statmap{extension}"

    def values(path: Path) -> np.ndarray:
        image = nib.load(path)
        return np.array([one.data for one in image.darrays]) if "hemi" in name else image.get_fdata()

    each = [values(func(out, f"{name.format(f'space-{space}')}_{stem.format('pearsonr')}", s)) for s in ("01", "02")]
    folder = out / f"tpl-{space}" / "func"
    mean = values(
        folder / f"tpl-{space}_task-objects_{name.format('').replace('__', '_').strip('_')}_{stem.format('mean')}"
    )
    known = np.isfinite(each).all(axis=0)
    assert known.sum() > 0.8 * known.size
    np.testing.assert_allclose(mean[known], np.mean(each, axis=0)[known], atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_a_second_run_recomputes_nothing_but_what_is_lost(out, dataset, tmp_path):
    folder = tmp_path / "bidsdnn"
    shutil.copytree(out, folder)
    lost = next(folder.glob("sub-01/func/*hemi-R*stat-r2*.func.gii"))
    content = lost.read_bytes()
    arguments = [str(dataset), str(folder), "participant", "--participant-label", "01", *options(dataset, SURFACE)]

    def times() -> dict[Path, int]:
        kept = (".gii", ".nii", ".h5", ".tsv", ".json")
        return {path: path.stat().st_mtime_ns for path in folder.glob("sub-*/**/*") if path.suffix in kept}

    before = times()
    assert main(arguments) == 0
    assert times() == before
    lost.unlink()
    made = ("desc-encoding", "bestlayer", "bestvoxels", "hierarchy", "networks")
    assert main(arguments) == 0
    assert lost.read_bytes() == content
    changed = {path.name for path, time in times().items() if before[path] != time}
    assert changed and all(any(word in name for word in made) for name in changed)


def test_reports_show_the_cortex(out):
    for page in ("sub-01", "group"):
        text = (out / f"{page}.html").read_text(encoding="utf-8")
        assert "Best layer in each vertex" in text and "Best layer in each grayordinate" in text
        assert "left, outer side" in text and "not shown" not in text and "is not known" not in text
    figures = {path.name for path in (out / "sub-01" / "figures").iterdir()}
    assert f"sub-01_task-objects_space-fsaverage_den-3k_{MODEL}_stat-bestlayer.svg" in figures
    assert f"sub-01_task-objects_space-fsLR_den-5k_{MODEL}_stat-bestlayer_part-2.svg" in figures


def test_without_a_mesh_the_report_says_so(dataset, tmp_path):
    copy, folder = tmp_path / "bids", tmp_path / "bidsdnn"
    shutil.copytree(dataset, copy)
    meshes = list(copy.rglob("*.surf.gii"))
    for path in [*meshes, *copy.rglob("*_desc-cortex_mask.label.gii")]:
        path.rename(tmp_path / path.name)
    asked = [*options(copy, SURFACE), "--participant-label", "01", "--analysis", "encoding"]
    arguments = [str(copy), str(folder), "participant", *asked]
    assert main(arguments) == 0
    page = (folder / "sub-01.html").read_text(encoding="utf-8")
    assert "its mesh is not known: give the meshes of both hemispheres with --mesh L R" in page
    assert "no cortex mask was found" in page
    pair = [str(tmp_path / f"sub-01_hemi-{side}_space-fsaverage_den-3k_midthickness.surf.gii") for side in "LR"]
    assert main([*arguments, "--mesh", *pair]) == 0
    page = (folder / "sub-01.html").read_text(encoding="utf-8")
    assert "is not known" not in page and "left, outer side" in page


def test_a_mesh_of_other_vertices_is_refused(out, dataset, tmp_path, capsys):
    small = nib.gifti.GiftiImage(darrays=[
        nib.gifti.GiftiDataArray(np.eye(3, dtype=np.float32), intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], dtype=np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ])  # fmt: skip
    mesh = tmp_path / "small.surf.gii"
    nib.save(small, mesh)
    arguments = [str(dataset), str(tmp_path / "o"), "participant", *options(dataset, SURFACE)]
    assert main([*arguments, "--participant-label", "01", "--mesh", str(mesh), str(mesh)]) != 0
    assert "3 and 3 vertices, sub-01_task-objects_run-1_hemi-L_space-fsaverage_den-3k_bold" in capsys.readouterr().err
    assert main([*arguments, "--mesh", str(mesh), str(tmp_path / "none.surf.gii")]) == 66
    config = tmp_path / "c.toml"
    config.write_text(f'mesh = ["{mesh}"]\n')
    assert main([*arguments, "--config-file", str(config)]) == 2
    assert "give the left and the right hemisphere's, --mesh L R" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_regions_time_series_are_responses_too(dataset, tmp_path):
    """A table of region means, as XCP-D writes them, found by a filter file."""
    prep, mine = dataset / "derivatives" / "fmriprep", tmp_path / "mine"
    atlas = dataset / "derivatives" / "planted" / ATLASES[CIFTI]
    tables = []
    for run in (1, 2):
        stem = f"sub-01/func/sub-01_task-objects_run-{run}_space-fsLR"
        space = Cifti.from_files([prep / f"{stem}_den-5k_bold.dtseries.nii"])
        series = space.read(prep / f"{stem}_den-5k_bold.dtseries.nii")
        means = {name: series[:, where].mean(axis=1) for name, where in space.regions(atlas).items()}
        tables.append(mine / f"{stem}_atlas-planted_timeseries.tsv")
        tables[-1].parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(means).to_csv(tables[-1], sep="\t", index=False)
        tables[-1].with_suffix(".json").write_text('{"RepetitionTime": 2, "StartTime": 1}')
    chosen = tmp_path / "filter.json"
    chosen.write_text('{"bold": {"suffix": "timeseries", "extension": ".tsv", "desc": null}}')
    arguments = [str(dataset), str(tmp_path / "out"), "participant", "--participant-label", "01", "--network", "demo",
                 "--analysis", "encoding", "--permutations", "19", "--nprocs", "1", "--bids-filter-file", str(chosen),
                 "-d", f"mine={mine}", f"fmriprep={prep}", "--atlas", str(tables[0])]  # fmt: skip
    assert main(arguments) == 0
    scores = read_table(next((tmp_path / "out").glob("sub-01/func/*_atlas-planted_*desc-encoding_results.tsv")))
    assert (scores["n_voxels"] == 1).all()
    # A region's mean keeps little of what its voxels tell apart: least of all where they see details.
    found = bests(scores, "pearsonr")
    assert (found["middle"], found["late"]) == (PLANTED["middle"], PLANTED["late"])
    assert scores.groupby("region")["pearsonr"].max()[["middle", "late"]].min() > 0.3
    assert "no picture of" in (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")


def test_a_surface_is_loaded_as_nilearn_takes_it(out):
    from nilearn.surface import SurfaceImage

    outputs = bidsdnn.load(out)
    chosen = {"sub": "01", "space": "fsaverage", "stat": "pearsonr", "desc": "encoding"}
    maps = outputs.maps(**chosen)
    assert list(maps) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc"]
    image, files = maps["conv3"], outputs.image("conv3", **chosen)
    assert isinstance(image, SurfaceImage) and len(files) == 2
    for side, file in zip(("left", "right"), files, strict=True):
        np.testing.assert_array_equal(np.ravel(image.data.parts[side]), file.darrays[0].data)
        assert image.mesh.parts[side].n_vertices == len(file.darrays[0].data)
    taken = outputs.masker(sub="01", space="fsaverage").transform(image)
    np.testing.assert_allclose(np.ravel(taken), outputs.values(**chosen)[2], atol=1e-6)
    assert list(outputs.maps(level="group", tpl="fsaverage", stat="mean", desc="encoding")) == list(maps)
    with pytest.raises(SelectionError, match="masks differ in space; say which: MNI152NLin2009cAsym, fsLR, fsaverage"):
        outputs.space(sub="01")


def test_a_cifti_file_is_loaded_whole_and_as_its_cortex(out):
    outputs = bidsdnn.load(out)
    chosen = {"sub": "02", "space": "fsLR", "stat": "pearsonr", "desc": "encoding"}
    one, whole = outputs.image("conv2", **chosen), outputs.image(**chosen)
    np.testing.assert_array_equal(one.get_fdata()[0], whole.get_fdata()[1])
    assert one.header.get_axis(0).name.tolist() == ["conv2"] and one.header.get_axis(1) == whole.header.get_axis(1)
    image, points = outputs.maps(**chosen)["conv2"], whole.header.get_axis(1)
    for side, name in (("left", "CIFTI_STRUCTURE_CORTEX_LEFT"), ("right", "CIFTI_STRUCTURE_CORTEX_RIGHT")):
        here = points.name == name
        data = np.ravel(image.data.parts[side])
        np.testing.assert_array_equal(data[points.vertex[here]], one.get_fdata()[0, here].astype(np.float32))
        assert np.isfinite(data).sum() == np.isfinite(one.get_fdata()[0, here]).sum()
    responses = outputs.responses(sub="02", space="fsLR")
    assert responses.values.shape == (24, len(points)) and responses.space.neighbors(radius=5.0).shape[0] == len(points)
    assert set(outputs.regions(sub="02", space="fsLR")["planted"]) == {"early", "middle", "late", "none"}
