from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.events import choose_stimulus_column, edit_events, read_events, read_id_map, read_tsv
from bidsdnn.bids.filters import event_filter
from bidsdnn.bids.shown import presented, require_files
from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.config_tables import EventEdits
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.stimuli import Stimuli


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_read_tsv_keeps_text(tmp_path):
    text = '\ufeffonset\tid\tnote\r\n1.50\t3626115.019498\tNA\r\n2\tn/a\t\r\n3\tnan\t"a\tb"\r\n\r\n'
    table = read_tsv(write(tmp_path / "t.tsv", text))
    assert list(table.columns) == ["onset", "id", "note"]
    assert table["id"].tolist() == ["3626115.019498", None, "nan"]
    assert table["note"].tolist() == ["NA", None, "a\tb"]
    assert table["onset"].tolist() == ["1.50", "2", "3"]


def test_read_tsv_bears_cells_missing_or_empty_at_the_end(tmp_path):
    table = read_tsv(write(tmp_path / "t.tsv", "a\tb\t\n1\n1\t2\t\t\n"))
    assert table["b"].tolist() == [None, "2"]


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        ("a\tb\n1\té\n", "latin-1", "not UTF-8 at byte 6"),
        ("a\n1\n", "utf-16", "not UTF-8"),
        ("a\tb\n1\t2\t3\n", "utf-8", "line 2 has 3 cells under 2 columns"),
        ("a\ta\n1\t2\n", "utf-8", "header"),
        ("a\t\tb\n1\t2\t3\n", "utf-8", "header"),
        ('a\tb\n1\t"x\n2\ty\n', "utf-8", "not readable as a table"),
        ("", "utf-8", "empty"),
        ("\n\n", "utf-8", "empty"),
    ],
)
def test_read_tsv_names_the_file_that_is_no_table(tmp_path, text, encoding, named):
    path = write(tmp_path / "t.tsv", text, encoding=encoding)
    with pytest.raises(DataError, match=named) as caught:
        read_tsv(path)
    assert str(caught.value).startswith(str(path))


def test_read_events_sorts_stably_and_counts_what_is_missing(tmp_path):
    text = "onset\tduration\tname\n4\t1\td\nn/a\t1\tx\n-2\tn/a\ta\n4.0\t0.5\te\n1e0\t2\tb\n"
    events = read_events(write(tmp_path / "e.tsv", text))
    assert events["name"].tolist() == ["a", "b", "d", "e"]
    assert events["onset"].tolist() == [-2.0, 1.0, 4.0, 4.0]
    assert events["duration"].tolist() == [0.0, 2.0, 1.0, 0.5]
    assert events["onset"].dtype == np.float64
    assert events.attrs == {"n_without_onset": 1, "n_without_duration": 1}


def test_read_events_reads_a_table_without_rows(tmp_path):
    assert read_events(write(tmp_path / "e.tsv", "onset\tduration\n")).empty


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("onset\tname\n1\ta\n", "no column 'duration' among onset, name"),
        ("onset,duration\n1,2\n", "no column 'onset'"),
        ("onset\tduration\n1\t1\n1s\t1\n", "onset '1s' in row 2"),
        ("onset\tduration\n1\tinf\n", "duration 'inf' in row 1"),
        ("onset\tduration\n1\t-1\n", "negative"),
    ],
)
def test_read_events_names_the_mistake(tmp_path, text, named):
    with pytest.raises(DataError, match=named):
        read_events(write(tmp_path / "e.tsv", text))


def test_read_events_needs_the_file(tmp_path):
    with pytest.raises(MissingInputError, match="not found"):
        read_events(tmp_path / "e.tsv")
    (tmp_path / "e.tsv").symlink_to(".git/annex/objects/gone")
    with pytest.raises(MissingInputError, match="datalad get"):
        read_events(tmp_path / "e.tsv")


def columns(**values: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"onset": [0.0, 1.0], "duration": [1.0, 1.0], **values}, dtype=object)


@pytest.fixture
def index(tmp_path: Path) -> StimulusIndex:
    for name in ("stimuli/cat/1.png", "stimuli/cat/2.png", "stimuli/face.png"):
        write(tmp_path / name, "x")
    (tmp_path / "stimuli" / "far.png").symlink_to("../.git/annex/objects/far")
    return StimulusIndex(tmp_path / "stimuli")


@pytest.mark.parametrize(
    ("tables", "chosen"),
    [
        ([columns(stim_file=["a", "b"], stim_id=["c", "d"], trial_type=["e", "f"])], "stim_id"),
        ([columns(stim_file=["a", "b"], stim_id=[None, None])], "stim_file"),
        ([columns(condition=["a", "b"], file_path=["c", "d"])], "file_path"),
        ([columns(trial_type=["a", "b"], other=["c", "d"])], "trial_type"),
        ([columns(trial_type=["face", "b"], image=["c", "d"])], "image"),
        ([columns(trial_type=["a", "b"]), columns(stim_file=["a", None])], "stim_file"),
        ([columns(stim=["9.png", "8.png"], stimname=["1.png", "2.png"])], "stimname"),
        ([columns(stim_file=["9.png", "8.png"], condition=["far.png", "x"])], "condition"),
        ([columns(stim_file=["../9.png", "8.png"], image=["x", "y"])], "stim_file"),
    ],
)
def test_choose_stimulus_column_follows_the_priorities(index, tables, chosen):
    assert choose_stimulus_column(tables, index) == chosen


def test_choose_stimulus_column_takes_what_was_asked(index):
    table = columns(stim_file=["cat/1.png", "cat/2.png"], mine=["x", None], empty=[None, None])
    assert choose_stimulus_column([table], index, asked="mine") == "mine"
    assert choose_stimulus_column([table], None) == "stim_file"
    for asked, fault in (("empty", "is empty"), ("Mine", "does not exist")):
        with pytest.raises(DataError, match=f"{fault}.*onset, duration, stim_file, mine, empty"):
            choose_stimulus_column([table], index, asked=asked)


def test_choose_stimulus_column_lists_what_there_is(index):
    with pytest.raises(DataError, match=r"onset, duration, odd with --stimulus-column"):
        choose_stimulus_column([columns(odd=["a", "b"], trial_type=[None, None]).drop(columns="trial_type")], index)


EVENTS = (
    "onset\tduration\tstim_file\tkind\n"
    "0\t1\tcat/1.png\tgo\n1\t1\tn/a\tgo\n2\t1\tstimuli\\CAT\\1.png\tgo\n3\t1\tnone.png\tgo\n4\t1\tcat/2.png\tcatch\n"
)


def test_presented_tells_trials_and_stimuli(tmp_path, index):
    one, two = write(tmp_path / "1.tsv", EVENTS), write(tmp_path / "2.tsv", "onset\tduration\tstim_file\n0\t1\tfar\n")
    found = presented([one, one, two], index=index, column="stim_file")
    table = found.events[one]
    assert table["trial"].tolist() == [True, False, True, True, True]
    assert table["stimulus_id"].tolist() == ["cat/1.png", None, "cat/1.png", "none.png", "cat/2.png"]
    expected = pd.DataFrame(
        {
            "stimulus_id": ["cat/1.png", "cat/2.png", "far.png", "none.png"],
            "filename": pd.Series(["cat/1.png", "cat/2.png", "far.png", None], dtype=object),
            "modality": "image",
            "sha256": "",
            "n_presentations": [4, 2, 1, 2],
            "present": [True, True, False, False],
        }
    )
    pd.testing.assert_frame_equal(found.stimuli, expected, check_dtype=False)
    assert (found.missing, found.datalad) == (["none.png"], ["far.png"])
    there = Stimuli(found.stimuli[found.stimuli["present"]], index.root)
    assert all(path.is_file() for path in there.paths)


def test_presented_keeps_what_the_filter_keeps(tmp_path, index):
    one, two = write(tmp_path / "1.tsv", EVENTS), write(tmp_path / "2.tsv", "onset\tduration\tstim_file\n0\t1\tface\n")
    found = presented([one, two], index=index, column="stim_file", keep=event_filter("kind == 'go'"))
    assert found.events[one]["trial"].tolist() == [True, False, True, True, False]
    assert not found.events[two]["trial"].any()
    assert found.stimuli["stimulus_id"].tolist() == ["cat/1.png", "none.png"]
    with pytest.raises(ConfigError, match=r"'sort'.*stim_file"):
        presented([one, two], index=index, column="stim_file", keep=event_filter("sort == 'go'"))
    with pytest.raises(DataError, match=r"no row has a stim_file that passes --event-filter \"kind == 'x'\""):
        presented([one], index=index, column="stim_file", keep=event_filter("kind == 'x'"))
    with pytest.raises(DataError, match="no row has a nothing"):
        presented([one], index=index, column="nothing")
    with pytest.raises(MissingInputError, match=r"no events.tsv"):
        presented([], index=index, column="stim_file")


def test_presented_takes_categories_as_they_are(tmp_path):
    path = write(tmp_path / "e.tsv", "onset\tduration\ttrial_type\n0\t1\tscrambled pix\n1\t1\tface\n2\t1\tface\n")
    found = presented([path], index=StimulusIndex(tmp_path / "none"), column="trial_type")
    assert found.stimuli["stimulus_id"].tolist() == ["face", "scrambled pix"]
    assert found.stimuli["n_presentations"].tolist() == [2, 1]
    assert not found.stimuli["present"].any()
    assert found.events[path]["stimulus_id"].tolist() == ["scrambled pix", "face", "face"]


def test_presented_refuses_two_values_in_one_file_and_tells_of_moved_ones(tmp_path, index, caplog):
    moved = write(tmp_path / "1.tsv", "onset\tduration\tstim_file\n0\t1\tdog/2.png\n1\t1\tdeep/cat/1.png\n")
    found = presented([moved], index=index, column="stim_file")
    assert found.stimuli["stimulus_id"].tolist() == ["cat/1.png", "cat/2.png"]
    assert "1 stimuli were found by file name in another folder, as dog/2.png at cat/2.png" in caplog.text
    both = write(tmp_path / "2.tsv", "onset\tduration\tstim_file\n0\t1\tdog/2.png\n1\t1\tcat/2.png\n")
    with pytest.raises(DataError, match=r"'dog/2.png' and 'cat/2.png' both mean cat/2.png"):
        presented([both], index=index, column="stim_file")


def test_presented_names_a_stimulus_that_leaves_the_folder(tmp_path, index):
    path = write(tmp_path / "e.tsv", "onset\tduration\tstim_file\n0\t1\t../../secret.png\n")
    with pytest.raises(DataError, match=r"'../../secret.png' leaves the stimuli folder"):
        presented([path], index=index, column="stim_file")


def test_require_files_counts_and_names_what_is_missing(tmp_path, index):
    rows = "".join(f"{i}\t1\tnone{i}.png\n" for i in range(7))
    header = "onset\tduration\tstim_file\n"
    none = presented([write(tmp_path / "1.tsv", header + rows)], index=index, column="stim_file")
    with pytest.raises(MissingInputError, match=r"7 of 7 stimuli.*none0.png, .*none4.png, \.\.\."):
        require_files(none, root=index.root)
    some = presented([write(tmp_path / "2.tsv", header + rows + "9\t1\tface\n")], index=index, column="stim_file")
    with pytest.raises(MissingInputError, match=r"7 of 8 stimuli are not there \(none0.png.*--event-filter"):
        require_files(some, root=index.root)
    annexed = presented([write(tmp_path / "3.tsv", header + "9\t1\tfar\n")], index=index, column="stim_file")
    with pytest.raises(MissingInputError, match=r"1 stimuli.*far.png.*datalad get"):
        require_files(annexed, root=index.root)


def test_ids_are_mapped_to_files(tmp_path, index):
    path = write(tmp_path / "map.tsv", "id\tfilename\n24812\tcat/1.png\n3626115.019498\tface.png\n7\tgone.png\n")
    mapped = StimulusIndex(index.root, id_map=read_id_map(path))
    assert mapped.resolve("24812.0").stimulus_id == mapped.resolve("24812").stimulus_id == "cat/1.png"
    assert mapped.resolve("3626115.019498").stimulus_id == "face.png"
    assert mapped.resolve("cat\\2").stimulus_id == "cat/2.png"
    assert (mapped.resolve("7").stimulus_id, mapped.resolve("7").status) == ("gone.png", "missing")
    # Two ids of one picture are repeats of it.
    events = write(tmp_path / "e.tsv", "onset\tduration\tvalue\n0\t1\t24812.0\n3\t1\t24812\n5\t1\tn/a\n")
    found = presented([events], index=mapped, column="value")
    assert found.stimuli[["stimulus_id", "n_presentations"]].to_numpy().tolist() == [["cat/1.png", 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tfile\n1\ta\n", "map.tsv: no column 'filename' among id, file"),
        ("id\tfilename\n1\ta\n2\tn/a\n", "no filename in row 2"),
        ("id\tfilename\n1\ta\n1\tb\n", "id '1' has two files"),
    ],
)
def test_id_maps_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_id_map(write(tmp_path / "map.tsv", text))


def test_blanks_are_no_stimuli_unless_a_file_says_so(tmp_path, index, caplog):
    text = "onset\tduration\tstim_file\n0\t1\tcat/1.png\n1\t1\tblank\n2\t1\tFixation.png\n3\t1\tface\n"
    path = write(tmp_path / "e.tsv", text)
    found = presented([path], index=index, column="stim_file")
    assert found.events[path]["trial"].tolist() == [True, False, False, True]
    assert found.missing == []
    assert "Fixation.png, blank is no stimulus; its rows are modelled" in caplog.text
    write(index.root / "blank.png", "x")
    found = presented([path], index=StimulusIndex(index.root), column="stim_file")
    assert found.events[path]["trial"].tolist() == [True, True, False, True]


def edited(**edits):
    table = pd.DataFrame(
        {"onset": range(5), "trial_type": ["face", "face", "cat", "dog", None], "sex": ["f", None, "f", "m", "m"]},
        dtype=object,
    )
    other = pd.DataFrame({"onset": [0], "trial_type": ["house"]}, dtype=object)
    found = edit_events({Path("a"): table, Path("b"): other}, EventEdits(**edits))
    assert table["trial_type"].tolist()[0] == "face"
    return found[Path("a")]["trial_type"].tolist(), found[Path("b")]["trial_type"].tolist()


def test_events_are_split_renamed_and_merged_in_this_order():
    assert edited() == (["face", "face", "cat", "dog", None], ["house"])
    assert edited(split={"face": "sex"})[0] == ["face_f", "face", "cat", "dog", None]
    assert edited(rename={"house": "building"})[1] == ["building"]
    both = edited(split={"face": "sex"}, rename={"face_f": "woman"}, merge={"animal": ("cat", "dog")})
    assert both == (["woman", "face", "animal", "animal", None], ["house"])
    assert edited(rename={"cat": "dog", "dog": "cat"})[0][2:4] == ["dog", "cat"]
    for edits, message in (
        ({"rename": {"hose": "x"}}, r"events.rename: no event has the trial_type 'hose'; did you mean house"),
        ({"merge": {"x": ("cow",)}}, "events.merge: no event has the trial_type 'cow'"),
        ({"split": {"face": "gender"}}, "events: no column 'gender'; the events have onset, sex, trial_type"),
        ({"column": "kind", "rename": {"a": "b"}}, "no column 'kind'"),
    ):
        with pytest.raises(ConfigError, match=message):
            edited(**edits)
