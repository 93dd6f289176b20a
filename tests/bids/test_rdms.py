"""RDMs of others, in the formats they come in; whatever is no RDM is named."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.distance import pdist, squareform

from bidsdnn.bids.arrays import write_rdms
from bidsdnn.bids.rdms import name_stimuli, read_people
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
    with pytest.raises(DataError, match=r"one array of RDMs, got \['a', 'b'\]"):
        read_people(tmp_path / "two.npz")
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "code.npy")
    (tmp_path / "r.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="not readable"):
        read_people(tmp_path / "r.npz")


def test_stimuli_by_name_or_in_sorted_order(tmp_path):
    known = ["b.png", "a.png", "c.png"]
    assert name_stimuli(None, 3, known, tmp_path) == ["a.png", "b.png", "c.png"]
    assert name_stimuli(["c", "a.png"], 2, known, tmp_path) == ["c.png", "a.png"]
    with pytest.raises(DataError, match="4 stimuli without names, the stimuli folder has 3"):
        name_stimuli(None, 4, known, tmp_path)
    with pytest.raises(DataError, match=r"1 stimuli are not in the stimuli folder \(z\)"):
        name_stimuli(["z", "a"], 2, known, tmp_path)
