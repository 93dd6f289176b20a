"""Feature spaces in every form are the same numbers, joined by name; what cannot be used is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.features import read_features
from bidsdnn.bids.runs import Run
from bidsdnn.errors import DataError, MissingInputError

VALUES = np.arange(8.0).reshape(4, 2) ** 2
IDS = ["faces/a.png", "faces/b.png", "c.png", "d.png"]


def a_run(**entities):
    entities = {"sub": "01", "task": "movie", **entities}
    return Run(entities, Path("x"), None, None, None, 2.0, 0.0, None, None, "raw")


def stimulus_level(folder):
    table = pd.DataFrame(VALUES, columns=["x", "y"]).assign(stimulus_id=IDS).iloc[::-1]
    table.to_csv(folder / "t.tsv", sep="\t", index=False)
    table.rename(columns={"stimulus_id": "stim_file"}).to_csv(folder / "t.csv", index=False)
    np.savez(folder / "t.npz", stimulus_id=np.array(IDS[::-1]), values=VALUES[::-1])
    np.save(folder / "t.npy", VALUES[::-1])
    (folder / "file_names.txt").write_text("".join(f"{one}\n" for one in IDS[::-1]))
    return [folder / name for name in ("t.tsv", "t.csv", "t.npz", "t.npy")]


@pytest.mark.parametrize("form", range(4))
def test_rows_of_stimuli_are_joined_by_name(tmp_path, form):
    space = read_features("mine", stimulus_level(tmp_path)[form])
    asked = ["c.png", "faces/a", "b.png"]
    found = space.rows(asked)
    assert found.ids == asked
    np.testing.assert_array_equal(found.values, VALUES[[2, 0, 1]])
    assert found.groups[0].name == found.groups[0].network == "mine"
    with pytest.raises(
        DataError, match=r"mine=.*nothing for stimulus 'e.png'; it has d.png, c.png, faces/b.png, \.\.\."
    ):
        space.rows(["a.png", "e.png"])


def test_two_files_of_one_name_are_not_guessed_between(tmp_path):
    pd.DataFrame({"stimulus_id": ["x/a.png", "y/a.png"], "f": [1, 2]}).to_csv(tmp_path / "t.csv", index=False)
    space = read_features("m", tmp_path / "t.csv")
    assert space.rows(["y/a.png"]).values.item() == 2
    with pytest.raises(DataError, match=r"several rows fit \(x/a.png, y/a.png\)"):
        space.rows(["a.png"])


def test_samples_stand_in_the_middle_of_their_duration(tmp_path):
    (tmp_path / "a.tsv").write_text("onset\tduration\tf\tg\n1\t1\t3\t4\n0\t1\t1\t2\n")
    (tmp_path / "b.csv").write_text("onset,f,g\n0,5,6\n")
    np.save(tmp_path / "c.npy", VALUES)
    (tmp_path / "c_times.txt").write_text("0\n1\n2\n3\n")
    space = read_features("m", tmp_path)
    times, values = space.course_of("movies/a.mp4")
    np.testing.assert_array_equal(times, [0.5, 1.5])
    np.testing.assert_array_equal(values, [[1, 2], [3, 4]])
    assert space.course_of("b.mp4").times.tolist() == [0]
    np.testing.assert_array_equal(space.course_of("c.mp4").values, VALUES)
    with pytest.raises(DataError, match="these features vary in time; use --response timeseries"):
        space.rows(["a.mp4"])


def test_the_long_form_is_the_wide_one(tmp_path):
    wide = pd.DataFrame({"stimulus": list("aabb"), "onset": [0, 1, 0, 1], "g": [1, 2, 3, 4], "f": [5, 6, 7, 8]})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    long = wide.melt(["stimulus", "onset"], var_name="feature")
    long.iloc[::-1].to_csv(tmp_path / "long.csv", index=False)
    one, other = (read_features("m", tmp_path / f"{name}.csv").course_of("b") for name in ("wide", "long"))
    np.testing.assert_array_equal(one.values[:, ::-1], other.values)
    long.iloc[:-1].to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(DataError, match="f has no value at some onsets"):
        read_features("m", tmp_path / "long.csv")
    pd.concat([long, long]).to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(DataError, match="g has two values at onset 0"):
        read_features("m", tmp_path / "long.csv")


def write_recording(root, name, values, *, header=False, **about):
    folder = root / "sub-01" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text("{}")
    lines = "".join("\t".join(map(str, row)) + "\n" for row in values)
    text = ("\t".join(about.get("Columns", ["x"])) + "\n" if header else "") + lines
    with gzip.open(folder / f"{name}_stim.tsv.gz", "wt") as file:
        file.write(text)
    (folder / f"{name}_stim.json").write_text(json.dumps(about))


def test_recordings_are_found_by_their_entities(tmp_path):
    about = {"SamplingFrequency": 2, "StartTime": -1.5, "Columns": ["x"]}
    write_recording(tmp_path, "sub-01_task-movie_run-1", [[1], [2], [3]], **about)
    write_recording(tmp_path, "sub-01_task-movie_run-02", [[4], [5]], header=True, **about)
    space = read_features("m", tmp_path)
    times, values = space.recording(a_run(run="01"))
    np.testing.assert_array_equal(times, [-1.5, -1.0, -0.5])
    np.testing.assert_array_equal(values, [[1], [2], [3]])
    np.testing.assert_array_equal(space.recording(a_run(run="2", space="T1w")).values, [[4], [5]])
    with pytest.raises(DataError, match=r"no _stim.tsv file for task-movie_run-3; add it"):
        space.recording(a_run(run="3"))
    before = space.content_of([a_run(run="1")])
    write_recording(tmp_path, "sub-01_task-movie_run-2", [[9], [9]], **about)
    assert read_features("m", tmp_path).content_of([a_run(run="1")]) == before
    write_recording(tmp_path, "sub-01_task-movie_run-1", [[1], [2], [3]], **{**about, "StartTime": 0})
    assert read_features("m", tmp_path).content_of([a_run(run="1")]) != before


def test_of_several_recordings_the_name_chooses(tmp_path):
    about = {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["x"]}
    for number, name in enumerate(("sound", "motion")):
        write_recording(tmp_path, f"sub-01_task-movie_run-1_recording-{name}", [[number]] * 2, **about)
    assert read_features("motion", tmp_path).recording(a_run(run="1")).values[0, 0] == 1
    with pytest.raises(DataError, match=r"2 files fit task-movie_run-1 .*recording- entity"):
        read_features("m", tmp_path).recording(a_run(run="1"))


@pytest.mark.parametrize(
    ("values", "about", "text"),
    [
        ([[1], ["n/a"]], {}, r"run-1_stim.tsv.gz: x is nan in row 2"),
        ([[1, 2]], {}, r"Columns \['x'\] do not name its 2 columns"),
        ([[1]], {"StartTime": None}, "StartTime None must be numbers; add them to its JSON file"),
        ([[1]], {"SamplingFrequency": 0}, "SamplingFrequency 0"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path, values, about, text):
    whole = {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["x"], **about}
    write_recording(tmp_path, "sub-01_task-movie_run-1", values, **whole)
    with pytest.raises(DataError, match=text):
        read_features("m", tmp_path).recording(a_run(run="1"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.tsv", "stimulus_id\tf\na\t1\na\t2\n", "stimulus 'a' has several rows"),
        ("t.tsv", "stimulus_id\tf\na\tred\n", "f is 'red' in row 1; give a number, or drop the column"),
        ("t.tsv", "stimulus_id\tf\nn/a\t1\n", "stimulus_id is empty in row 1"),
        ("t.tsv", "name\tf\na\t1\n", "no column names the stimuli; call it stimulus_id"),
        ("t.tsv", "stimulus_id\na\n", "no row or no column of features"),
        ("t.txt", "a", "not a folder, table or array"),
        ("t.npz", "a", "not readable as arrays of numbers"),
        ("t.tsv", "", "not readable as a table"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_features("m", tmp_path / name)


def test_arrays_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / "p.npz", stimulus_id=np.array(["a"], dtype=object), values=np.ones((1, 1)))
    with pytest.raises(DataError, match="without pickle"):
        read_features("m", tmp_path / "p.npz")
    np.savez(tmp_path / "n.npz", stimulus_id=np.array(["a"]), values=np.full((1, 1), np.nan))
    with pytest.raises(DataError, match="holds float64 with NaN"):
        read_features("m", tmp_path / "n.npz")
    np.savez(tmp_path / "s.npz", stimulus_id=np.array(["a", "b"]), values=np.ones((1, 1)))
    with pytest.raises(DataError, match=r"2 names for values of shape \(1, 1\)"):
        read_features("m", tmp_path / "s.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingInputError, match=r"no _stim\.tsv, table"):
        read_features("m", tmp_path / "folder")
    np.save(tmp_path / "folder" / "a.npy", VALUES)
    with pytest.raises(MissingInputError, match=r"no times beside it; add a_times.txt"):
        read_features("m", tmp_path / "folder")
    (tmp_path / "folder" / "a_times.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="give a time a row"):
        read_features("m", tmp_path / "folder")
    (tmp_path / "folder" / "a.tsv").write_text("onset\tf\n0\t1\n")
    (tmp_path / "folder" / "a_times.txt").write_text("1\n2\n3\n4\n")
    with pytest.raises(DataError, match="a second file for the stimulus 'a'"):
        read_features("m", tmp_path / "folder")
