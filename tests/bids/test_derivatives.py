"""The output dataset: names, whole files, sidecars, receipts."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bids.layout import BIDSLayout

from bidsdnn.bids.arrays import read_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import atomic, digest, read_table, write_text, write_tsv
from bidsdnn.errors import DataError, OutputError
from bidsdnn.result import Map, Result
from bidsdnn.spaces import Surface, Volume

ENTITIES = {"sub": "01", "task": "t", "space": "MNI152NLin2009cAsym", "res": "2"}
SPACE = Volume(np.ones((2, 2, 2), dtype=bool), np.eye(4))


@pytest.fixture
def out(tmp_path):
    return Derivatives(tmp_path / "out", {"raw": tmp_path / "raw", "fmriprep": tmp_path / "raw" / "derivatives" / "f"})


def result():
    table = pd.DataFrame(
        {
            "atlas": ["a", "b"],
            "network": ["n", "n"],
            "layer": ["x", "x"],
            "region": ["V1", "V2"],
            "pearsonr": [0.1, np.nan],
        }
    )
    return Result(
        "encoding",
        maps=(Map("pearsonr", np.ones((2, 8)), "n", {"Layers": ["x", "y"]}),),
        tables={"encoding": table},
        arrays={"a": (["s1", "s2", "s3"], {"V1/d <b>": np.array([0.1, 0.2, 0.3])})},
        sidecar={"Methods": "It was done."},
    )


def test_a_result_is_current_until_something_is_lost(out):
    out.save(result(), SPACE, "hash", **ENTITIES)
    assert out.current("encoding", "hash", **ENTITIES)
    assert not out.current("encoding", "other", **ENTITIES)
    assert not out.current("rsa", "hash", **ENTITIES)
    next(out.root.rglob("*_relmat.h5")).unlink()
    assert not out.current("encoding", "hash", **ENTITIES)


def test_names_and_sidecars(out):
    out.save(result(), SPACE, "hash", **ENTITIES)
    stem = "sub-01/func/sub-01_task-t_space-MNI152NLin2009cAsym"
    names = {path.relative_to(out.root).as_posix() for path in out.root.rglob("*") if path.is_file()}
    assert f"{stem}_res-2_model-n_stat-pearsonr_desc-encoding_statmap.nii.gz" in names
    assert f"{stem}_atlas-a_res-2_model-n_desc-encoding_results.tsv" in names
    assert f"{stem}_atlas-a_res-2_stat-correlation_relmat.h5" in names
    sidecar = json.loads((out.root / f"{stem}_res-2_model-n_stat-pearsonr_desc-encoding_statmap.json").read_text())
    assert sidecar["SkullStripped"] is True
    assert {"Resolution", "SpatialReference", "Layers", "Methods", "ConfigurationHash"} <= set(sidecar)
    table = read_table(out.root / f"{stem}_atlas-b_res-2_model-n_desc-encoding_results.tsv")
    assert table.columns.tolist() == ["network", "layer", "region", "pearsonr"]
    assert np.isnan(table["pearsonr"]).all()


def test_a_regions_name_survives_hdf5(out):
    out.save(result(), SPACE, "hash", **ENTITIES)
    path = next(out.root.rglob("*_relmat.h5"))
    ids, rdms = read_rdms(path)
    assert ids == ["s1", "s2", "s3"]
    np.testing.assert_array_equal(rdms["V1/d <b>"], [0.1, 0.2, 0.3])
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="delete it and run again"):
        read_rdms(path)


def test_entries_are_what_reports_need(out):
    out.save(result(), SPACE, "hash", **ENTITIES)
    found = out.entries(below="sub-01")
    assert sorted(suffix for _, _, suffix, _ in found) == ["relmat", "results", "results", "statmap"]
    arrays = next(sidecar for _, _, suffix, sidecar in found if suffix == "relmat")
    assert arrays["_items"] == ["s1", "s2", "s3"]
    assert all("_arrays" not in sidecar for _, _, _, sidecar in out.entries(below="sub-01", arrays=False))


def test_uris_lead_back_to_the_file(out, tmp_path):
    inside = tmp_path / "raw" / "derivatives" / "f" / "sub-01" / "x.nii.gz"
    assert out.uri(inside) == "bids:fmriprep:sub-01/x.nii.gz"
    assert out.uri(tmp_path / "raw" / "a.tsv") == "bids:raw:a.tsv"
    assert out.uri(out.root / "b.tsv") == "bids::b.tsv"
    assert out.uri(Path("/elsewhere/x")) == "/elsewhere/x"
    for path in (inside, tmp_path / "raw" / "a.tsv", out.root / "b.tsv"):
        assert out.resolve(out.uri(path)) == path


def test_the_dataset_describes_itself_and_keeps_others_links(out):
    out.start({"License": "CC0", "DatasetDOI": "doi:10.1/x"})
    description = json.loads((out.root / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "bidsdnn"
    assert description["DatasetLinks"] == {"raw": "../raw", "fmriprep": "../raw/derivatives/f"}
    assert description["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]
    Derivatives(out.root, {"raw": out.links["raw"]}).start({})
    assert "fmriprep" in json.loads((out.root / "dataset_description.json").read_text())["DatasetLinks"]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "whole"
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(path / "below" / "a file.txt", "x")


def test_tables_read_back_equal(tmp_path):
    table = pd.DataFrame({"region": ["NA", "1", "nan"], "pearsonr": [0.123456789, np.nan, -1.0], "n": [1, 2, 3]})
    write_tsv(tmp_path / "t.tsv", table)
    assert (tmp_path / "t.tsv").read_text() == "region\tpearsonr\tn\nNA\t0.123456789\t1\n1\tn/a\t2\nnan\t-1\t3\n"
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.tsv").astype(table.dtypes), table)


def test_the_hash_depends_on_content_and_not_on_order():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


SHEET = Surface((np.arange(5) > 0, np.ones(4, dtype=bool)))


def test_a_surfaces_two_files_come_together(out, monkeypatch):
    entities = {"sub": "01", "task": "t", "space": "fsaverage", "den": "10k"}
    one = Result("encoding", maps=(Map("pearsonr", np.ones((2, 8)), "n", {"Layers": ["x", "y"]}),))
    out.save(one, SHEET, "hash", **entities)
    names = sorted(path.name for path in (out.root / "sub-01" / "func").iterdir())
    stem = "sub-01_task-t_hemi-{}_space-fsaverage_den-10k_model-n_stat-pearsonr_desc-encoding_statmap"
    assert names == sorted(
        [stem.format(side) + extension for side in "LR" for extension in (".func.gii", ".json")]
        + ["sub-01_task-t_space-fsaverage_den-10k_desc-encoding_results.json"]
    )
    left, right = (next(out.root.rglob(f"{stem.format(side)}.func.gii")) for side in "LR")
    np.testing.assert_array_equal(SHEET.read(left), np.ones((2, 8)))
    listed = [(path.name, entities) for path, entities, _, _ in out.entries(below="sub-01")]
    assert listed == [(left.name, {**entities, "model": "n", "stat": "pearsonr", "desc": "encoding"})]
    before = {path: path.read_bytes() for path in (left, right)}

    def half(self, path, values, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Surface, "write", half)
    with pytest.raises(OutputError, match="No space left on device"):
        out.save(one, SHEET, "other", **entities)
    assert {path: path.read_bytes() for path in (left, right)} == before
    assert sorted(path.name for path in (out.root / "sub-01" / "func").iterdir()) == names
    right.unlink()
    assert not out.current("encoding", "hash", **entities)


def test_pybids_finds_our_products_by_their_entities(out):
    entities = {"sub": "01", "task": "t", "space": "fsaverage", "den": "10k"}
    for network in ("a+x", "b"):
        one = Result(f"encoding{network[0]}", maps=(Map("pearsonr", np.ones((1, 8)), network),))
        out.save(one, SHEET, "hash", **entities)
    out.start({})
    out.write_map(out.image_path("statmap", SPACE, tpl="S", stat="mean", desc="x"), np.ones(8), SPACE, {})
    config = ["bids", str(files("bidsdnn.bids") / "pybids.json")]
    layout = BIDSLayout(out.root, validate=False, is_derivative=True, config=config)
    found = layout.get(suffix="statmap", stat="pearsonr", hemi="R", model="a+x", den="10k", extension=".func.gii")
    assert [one.filename for one in found] == [
        "sub-01_task-t_hemi-R_space-fsaverage_den-10k_model-a+x_stat-pearsonr_desc-encodinga_statmap.func.gii"
    ]
    assert [one.get_entities()["stat"] for one in layout.get(template="S", extension=".nii.gz")] == ["mean"]
