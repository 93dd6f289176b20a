"""RDMs of others, in the formats they come in; whatever is no RDM is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform

from bidsdnn.bids.arrays import write_rdms
from bidsdnn.bids.rdms import name_stimuli, read_people, reordered
from bidsdnn.errors import DataError, MissingInputError

PAIRS = np.array([pdist(np.random.default_rng(seed).normal(size=(6, 4))) for seed in range(3)])
SQUARES = np.array([squareform(pairs) for pairs in PAIRS])


@pytest.mark.parametrize("array", [SQUARES, PAIRS], ids=["square", "condensed"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_several_people_in_one_file(tmp_path, array, suffix):
    path = tmp_path / f"r{suffix}"
    {".npy": np.save, ".npz": lambda p, a: np.savez(p, x=a), ".mat": lambda p, a: savemat(p, {"x": a})}[suffix](
        path, array
    )
    ids, rdms = read_people(path)
    assert ids is None
    np.testing.assert_allclose(rdms, PAIRS)


def test_one_person_and_files_with_names(tmp_path):
    np.save(tmp_path / "one.npy", SQUARES[0])
    np.testing.assert_allclose(read_people(tmp_path / "one.npy")[1], PAIRS[:1])
    lines = ["\t".join("abcdef"), *("\t".join(map(str, row)) for row in SQUARES[1])]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    ids, rdms = read_people(tmp_path / "t.tsv")
    assert ids == list("abcdef")
    np.testing.assert_allclose(rdms, PAIRS[1:2])
    write_rdms(tmp_path / "x_relmat.h5", {"01": PAIRS[0], "02": PAIRS[1]}, list("abcdef"))
    ids, rdms = read_people(tmp_path / "x_relmat.h5")
    assert ids == list("abcdef")
    np.testing.assert_allclose(rdms, PAIRS[:2])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\) is no RDM"),
        (np.arange(16.0).reshape(1, 4, 4), "differs from its transpose"),
        (np.ones((4, 4)), "the diagonal of an RDM is up to 1 and not 0"),
        (np.ones((1, 5, 5)) - np.eye(5) + 0.2 * np.eye(5), "the diagonal of an RDM is up to 0.2"),
        (squareform([1.0, 2, np.nan, 3, 4, 5]), r"gaps \(NaN\) in 1 pairs"),
        (np.ones((3, 3)) - np.eye(3), "3 stimuli make no RDM"),
        (np.zeros((2, 7)), "7 pairs belong to no number of stimuli"),
        (np.zeros(6), "is no RDM"),
    ],
)
def test_what_is_no_rdm(tmp_path, array, message):
    np.save(tmp_path / "r.npy", array)
    with pytest.raises(DataError, match=message):
        read_people(tmp_path / "r.npy")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingInputError):
        read_people(tmp_path / "none.npy")
    (tmp_path / "r.csv").write_text("1")
    with pytest.raises(DataError, match="unknown ending"):
        read_people(tmp_path / "r.csv")
    np.savez(tmp_path / "two.npz", a=SQUARES, b=SQUARES)
    with pytest.raises(DataError, match=r"as the region, got \['a', 'b'\]"):
        read_people(tmp_path / "two.npz")
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "code.npy")
    (tmp_path / "r.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "r.mat")
    (tmp_path / "r.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "r.h5")
    (tmp_path / "r.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "r.npz")


def test_names_beside_the_array(tmp_path):
    np.savez(tmp_path / "r.npz", rdms=SQUARES, stim_id=np.array(list("fedcba")))
    savemat(tmp_path / "r.mat", {"rdms": SQUARES, "stim_id": np.array(list("fedcba"), dtype=object)})
    for suffix in (".npz", ".mat"):
        ids, rdms = read_people(tmp_path / f"r{suffix}")
        assert ids == list("fedcba")
        np.testing.assert_allclose(rdms, PAIRS)
    np.savez(tmp_path / "two.npz", EVC=SQUARES[:1], IT=SQUARES[1:], labels=np.array(list("aabcde")))
    with pytest.raises(DataError, match="5 names for 6 stimuli"):
        read_people(tmp_path / "two.npz", region="IT")
    np.savez(tmp_path / "two.npz", EVC=SQUARES[:1], IT=SQUARES[1:])
    np.testing.assert_allclose(read_people(tmp_path / "two.npz", region="IT")[1], PAIRS[1:])


def test_matlab_files_of_version_7_3_and_participants_last(tmp_path):
    with h5py.File(tmp_path / "r.mat", "w") as file:
        # MATLAB writes its axes the other way round, texts as numbers, and cells as references.
        file["rdms"] = SQUARES.T
        note = file.create_dataset("note", data=np.array([[ord(c)] for c in "made by me"], dtype=np.uint16))
        note.attrs["MATLAB_class"] = b"char"
        names = [file.create_dataset(f"#refs#/{c}", data=np.array([[ord(c)]], dtype=np.uint16)).ref for c in "abcdef"]
        file.create_dataset("stimuli", data=np.array([names], dtype=h5py.ref_dtype))
    ids, rdms = read_people(tmp_path / "r.mat")
    assert ids == list("abcdef")
    np.testing.assert_allclose(rdms, PAIRS)
    savemat(tmp_path / "last.mat", {"rdms": np.moveaxis(SQUARES, 0, 2)})
    np.testing.assert_allclose(read_people(tmp_path / "last.mat")[1], PAIRS)


def test_dnnbrains_rdm_files(tmp_path):
    with h5py.File(tmp_path / "b.rdm.h5", "w") as file:
        file.attrs["type"] = "bRDM"
        file["1"], file["2"] = PAIRS[0], PAIRS[1]
    np.testing.assert_allclose(read_people(tmp_path / "b.rdm.h5", region="2")[1], PAIRS[1:2])
    with pytest.raises(DataError, match="it holds 1, 2; name one of them"):
        read_people(tmp_path / "b.rdm.h5", region="IT")
    with h5py.File(tmp_path / "d.rdm.h5", "w") as file:
        file.attrs["type"] = "dRDM"
        file["conv1"] = PAIRS
    np.testing.assert_allclose(read_people(tmp_path / "d.rdm.h5")[1], PAIRS)
    with h5py.File(tmp_path / "x.rdm.h5", "w") as file:
        file.attrs["type"] = "other"
    with pytest.raises(DataError, match="type 'other' is none of bRDM, dRDM"):
        read_people(tmp_path / "x.rdm.h5")


def test_tables_with_names_of_rows(tmp_path):
    def write(rows):
        lines = ["\t".join(["", *"abcdef"])]
        lines += ["\t".join([name, *map(str, row)]) for name, row in zip(rows, SQUARES[1], strict=True)]
        (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")

    write("abcdef")
    ids, rdms = read_people(tmp_path / "t.tsv")
    assert ids == list("abcdef")
    np.testing.assert_allclose(rdms, PAIRS[1:2])
    write("abcdfe")
    with pytest.raises(DataError, match="name different stimuli, or stand in another order"):
        read_people(tmp_path / "t.tsv")


def test_another_order_of_the_same_stimuli():
    order = [3, 0, 5, 1, 4, 2]
    moved = reordered(PAIRS, list("abcdef"), ["abcdef"[k] for k in order])
    np.testing.assert_allclose(moved, [squareform(square[np.ix_(order, order)]) for square in SQUARES])


def test_stimuli_by_name_or_in_the_order_of_those_known(tmp_path):
    known = ["b.png", "a.png", "c.png"]
    assert name_stimuli(None, 3, known, tmp_path) == known
    assert name_stimuli(["c", "a.png"], 2, known, tmp_path) == ["c.png", "a.png"]
    with pytest.raises(DataError, match="4 stimuli without names, the stimuli folder has 3"):
        name_stimuli(None, 4, known, tmp_path)
    with pytest.raises(DataError, match=r"1 stimuli are not in the stimuli folder \(z\)"):
        name_stimuli(["z", "a"], 2, known, tmp_path)
