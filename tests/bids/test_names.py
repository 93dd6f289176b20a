from __future__ import annotations

import json
from pathlib import Path

import pytest

from bidsdnn.bids import names
from bidsdnn.errors import DataError, MissingInputError

PATHS = [
    "sub-01/ses-01/func/sub-01_ses-01_task-things_run-01_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
    "sub-01/func/sub-01_task-t_hemi-L_space-fsaverage_den-10k_stat-effect_desc-singletrial_statmap.func.gii",
    "sub-01/func/sub-01_task-t_space-fsLR_den-91k_bold.dtseries.nii",
    "sub-01/func/sub-01_task-a+b_space-S_atlas-A_seg-s_scale-2_res-2_label-V1_model-m_stat-r2_desc-x_relmat.h5",
    "tpl-S/func/tpl-S_task-t_model-resnet18+none+seed0_stat-t_desc-encoding_statmap.nii.gz",
    "stimuli/model-alexnet_activations.h5",
    "group/task-t_space-S_atlas-A_model-m_desc-rsa_results.tsv",
    "task-rest_bold.json",
]


@pytest.mark.parametrize("text", PATHS)
def test_names_round_trip(text):
    parsed = names.parse(text)
    suffix, extension, datatype = parsed.pop("suffix"), parsed.pop("extension"), parsed.pop("datatype", None)
    backwards = dict(reversed(parsed.items()))
    assert names.build(backwards, suffix=suffix, extension=extension, datatype=datatype) == Path(text)


def test_entities_order_is_the_specifications():
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    official = [schema.objects.entities[name].name for name in schema.rules.entities]
    assert [entity for entity in names.ENTITIES if entity not in ("model", "contrast", "stat")] == official


def test_parse_reads_either_order_of_entities():
    old = names.parse("sub-01_task-t_space-fsnative_hemi-L_bold.func.gii")
    assert old == names.parse("sub-01_task-t_hemi-L_space-fsnative_bold.func.gii")
    assert old["extension"] == ".func.gii"
    assert old["hemi"] == "L"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sub-C_run-01_bold_space-T1w_preproc.nii.gz", "sub-C_run-01_space-T1w_desc-preproc_bold.nii.gz"),
        ("sub-C_run-01_bold_space-T1w_brainmask.nii.gz", "sub-C_run-01_space-T1w_desc-brain_mask.nii.gz"),
        ("sub-C_run-01_bold_confounds.tsv", "sub-C_run-01_desc-confounds_timeseries.tsv"),
        ("sub-C_T1w_preproc.nii.gz", "sub-C_desc-preproc_T1w.nii.gz"),
        ("sub-C_run-01_bold_space-fsnative.L.func.gii", "sub-C_run-01_hemi-L_space-fsnative_bold.func.gii"),
        ("sub-C_run-01_bold_space-fsaverage5.R.func.gii", "sub-C_run-01_hemi-R_space-fsaverage5_bold.func.gii"),
        ("sub-C_T1w_midthickness.R.surf.gii", "sub-C_hemi-R_midthickness.surf.gii"),
        ("lh.sub-C_task-x_space-fsaverage_bold.mgh", "sub-C_task-x_hemi-L_space-fsaverage_bold.mgh"),
    ],
)
def test_parse_knows_names_of_fmriprep_1(old, new):
    assert names.parse(old) == names.parse(new)


def test_parse_gives_foreign_names_their_stem_as_suffix():
    assert names.parse("dataset_description.json") == {"suffix": "dataset_description", "extension": ".json"}
    assert names.parse("sub-01_oops_bold.nii")["suffix"] == "sub-01_oops_bold"
    assert names.parse("sub-01_desc-preproc-smooth90_bold.nii.gz")["desc"] == "preproc-smooth90"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"entities": {"sub": "0_1"}}, "'0_1'"),
        ({"entities": {"sub": "a-b"}}, "'a-b'"),
        ({"entities": {"sub": ""}}, "sub"),
        ({"entities": {"layer": "x"}}, "'layer'"),
        ({"suffix": "stat_map"}, "stat_map"),
        ({"extension": "nii.gz"}, "nii.gz"),
        ({"datatype": "brain"}, "brain"),
    ],
)
def test_build_refuses_illegal_parts(wrong, named):
    good = {"entities": {"sub": "01"}, "suffix": "statmap", "extension": ".nii.gz", "datatype": "func"}
    asked = {**good, **wrong}
    with pytest.raises(ValueError, match=named):
        names.build(asked.pop("entities"), **asked)


def test_build_leaves_out_none_and_prepends_the_root():
    path = names.build({"sub": "01", "ses": None, "run": 2}, suffix="bold", extension=".nii", root=Path("/out"))
    assert path == Path("/out/sub-01/sub-01_run-2_bold.nii")


def test_label_makes_any_text_legal():
    assert names.label("layer4.1.relu") == "layer4+1+relu"
    assert names.label(" Mixed_7c / x ") == "Mixed+7c+x"
    assert names.LABEL.fullmatch(names.label("Größe 2"))
    with pytest.raises(ValueError, match="'--'"):
        names.label("--")


def test_natural_order_counts():
    assert sorted(["run-10", "run-2", "run-1", "b"], key=names.natural) == ["b", "run-1", "run-2", "run-10"]


def touch(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_inherited_lists_nearest_first_and_skips_what_does_not_apply(tmp_path):
    func = tmp_path / "sub-01" / "ses-1" / "func"
    near = touch(func / "sub-01_ses-1_task-a_run-1_events.tsv")
    middle = touch(tmp_path / "sub-01" / "sub-01_task-a_events.tsv")
    top = touch(tmp_path / "task-a_events.tsv")
    touch(func / "sub-01_ses-1_task-a_run-2_events.tsv")
    touch(func / "._sub-01_ses-1_task-a_run-1_events.tsv")
    touch(tmp_path / "task-b_events.tsv")
    touch(tmp_path / "task-a_acq-x_events.tsv")
    touch(tmp_path / "odd_task_events.tsv")
    touch(tmp_path / "task-a_events.json")
    touch(tmp_path.parent / "events.tsv")
    bold = func / "sub-01_ses-1_task-a_run-01_bold.nii.gz"
    found = names.inherited(bold, root=tmp_path, suffix="events", extension=".tsv")
    assert found == [near, middle, top]


def test_inherited_prefers_more_entities_within_a_folder(tmp_path):
    general, special = touch(tmp_path / "task-a_bold.json"), touch(tmp_path / "task-a_run-01_bold.json")
    bold = tmp_path / "sub-01" / "sub-01_task-a_run-1_bold.nii.gz"
    assert names.inherited(bold, root=tmp_path, suffix="bold", extension=".json") == [special, general]
    with pytest.raises(ValueError, match="below"):
        names.inherited(tmp_path / "x.nii", root=tmp_path / "sub-01", suffix="bold", extension=".json")


def test_sidecar_merges_and_the_nearest_wins(tmp_path):
    touch(tmp_path / "task-a_bold.json", json.dumps({"RepetitionTime": 2, "TaskName": "a"}))
    touch(tmp_path / "sub-01" / "func" / "sub-01_task-a_bold.json", "\ufeff" + json.dumps({"RepetitionTime": 3}))
    bold = tmp_path / "sub-01" / "func" / "sub-01_task-a_bold.nii.gz"
    assert names.sidecar(bold, root=tmp_path) == {"RepetitionTime": 3, "TaskName": "a"}
    assert names.sidecar(tmp_path / "sub-01" / "sub-01_T1w.nii.gz", root=tmp_path) == {}


@pytest.mark.parametrize("content", ["{oops", "[1]", "[" * 100_000])
def test_sidecar_names_the_file_that_is_no_json(tmp_path, content):
    bad = touch(tmp_path / "bold.json", content)
    with pytest.raises(DataError, match=str(bad)):
        names.sidecar(tmp_path / "sub-01_bold.nii.gz", root=tmp_path)


def test_sidecar_of_datalad_says_get(tmp_path):
    (tmp_path / "sub-01_bold.json").symlink_to(".git/annex/objects/gone")
    with pytest.raises(MissingInputError, match="datalad get"):
        names.sidecar(tmp_path / "sub-01_bold.nii.gz", root=tmp_path)
    with pytest.raises(MissingInputError, match="not found"):
        names.require(tmp_path / "none.json")
