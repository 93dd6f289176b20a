"""Parcels: regions' time series as CIFTI or tables, joined by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, ParcelsAxis

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.spaces import Cifti, Parcels, header_tr, intersection, kind_of, recording_shape, shared_space

NAMES = ("L_V1", "L_V2", "Thalamus")


def axis(names=NAMES) -> ParcelsAxis:
    vertices = [{"CIFTI_STRUCTURE_CORTEX_LEFT": np.array([3 * index, 3 * index + 1])} for index in range(len(names))]
    return ParcelsAxis(
        list(names), [np.zeros((0, 3), int)] * len(names), vertices, None, None, {"CIFTI_STRUCTURE_CORTEX_LEFT": 20}
    )


@pytest.fixture(params=["cifti", "table"])
def parcels(request) -> Parcels:
    return Parcels(NAMES, axis() if request.param == "cifti" else None)


def test_written_values_read_back_equal(parcels, tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    values[1, 2] = np.nan
    path = tmp_path / f"x_statmap{parcels.extension}"
    parcels.write(path, values)
    np.testing.assert_array_equal(parcels.read(path), values)
    assert kind_of(path) is Parcels
    assert recording_shape(path) == (3, 4)
    found, warnings = shared_space([path], [])
    assert (found.names, found.identity, warnings) == (NAMES, parcels.identity, [])
    assert list(found.regions(path)) == list(NAMES)
    np.testing.assert_array_equal(np.array(list(found.regions(path).values())), np.eye(3, dtype=bool))
    parcels.write_mask(tmp_path / f"mask{parcels.label_extension}")
    assert intersection([tmp_path / f"mask{parcels.label_extension}"]).identity == parcels.identity


def test_series_of_parcels(tmp_path):
    path = tmp_path / "x.ptseries.nii"
    Parcels(NAMES, axis()).write(path, np.ones((5, 3)), tr=0.72)
    assert header_tr(path) == pytest.approx(0.72)
    assert nib.load(path).nifti_header["intent_code"] == 3004
    assert nib.load(path).header.get_axis(1) == axis()


def test_columns_are_joined_by_name(parcels, tmp_path):
    order = [2, 0, 1]
    names = tuple(NAMES[index] for index in order)
    other = Parcels((*names, "extra"), None if parcels.axis is None else axis((*names, "extra")))
    values = np.arange(8.0).reshape(2, 4)
    path = tmp_path / f"b{parcels.extension}"
    other.write(path, values)
    np.testing.assert_array_equal(parcels.read(path), values[:, [1, 2, 0]])
    first = tmp_path / f"a{parcels.extension}"
    parcels.write(first, values[:, :3])
    assert shared_space([path, first], [])[0].names == names
    with pytest.raises(DataError, match="lacks 1 of 4 regions, such as extra"):
        other.read(first)


def test_labels_group_parcels(tmp_path):
    parcels = Parcels(NAMES, axis())
    path = tmp_path / "x.plabel.nii"
    parcels.write_codes(path, np.array([1, 1, 2]), {1: "visual", 2: "deep"})
    regions = parcels.regions(path)
    np.testing.assert_array_equal(regions["visual"], [True, True, False])
    np.testing.assert_array_equal(regions["deep"], [False, False, True])


def test_what_parcels_cannot_do(parcels, tmp_path):
    with pytest.raises(DataError, match="have no neighbours"):
        parcels.neighbors(radius=3.0)
    with pytest.raises(DataError, match="cannot be smoothed"):
        parcels.smooth(np.ones((1, 3)), 4.0)
    with pytest.raises(DataError, match="the data are parcels"):
        parcels.regions(tmp_path / "dseg.nii.gz")


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "x_timeseries.tsv"
    path.write_text("a\tb\n1\ttwo\n")
    with pytest.raises(DataError, match=r"x_timeseries\.tsv: not a table of numbers"):
        Parcels(("a", "b")).read(path)
    path.write_text("a\ta\n1\t2\n")
    with pytest.raises(DataError, match="two regions are called a"):
        shared_space([path], [])
    path.write_text("\ufeffa\tb\r\n1\tn/a\r\n3\t4\r\n")
    np.testing.assert_array_equal(Parcels(("a", "b")).read(path), [[1, np.nan], [3, 4]])
    (tmp_path / "y.tsv").write_text("c\td\n1\t2\n")
    with pytest.raises(DataError, match=r"y\.tsv: has no region in common"):
        shared_space([path, tmp_path / "y.tsv"], [])
    with pytest.raises(MissingInputError, match="check the path"):
        shared_space([tmp_path / "none.tsv"], [])
    dense = Cifti(BrainModelAxis.from_surface(np.arange(4), 5, name="CortexLeft"))
    dense.write(tmp_path / "x.pscalar.nii", np.ones(4))
    with pytest.raises(DataError, match=r"without parcels \(its columns are BrainModel\)"):
        shared_space([tmp_path / "x.pscalar.nii"], [])
