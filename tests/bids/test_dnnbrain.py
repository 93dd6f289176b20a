"""DNNBrain's five formats: what is read is what DNNBrain means, a round trip loses nothing, damage is named."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from bidsdnn.bids.dnnbrain import (
    StimFile,
    read_act,
    read_dmask,
    read_layers,
    read_rdm,
    read_roi,
    read_stim,
    stimuli_of,
    write_act,
    write_dmask,
    write_rdm,
    write_roi,
    write_stim,
)
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.patterns import Group
from bidsdnn.stimuli import pixels, unreadable
from tests.stimuli.conftest import greys, write_film

RNG = np.random.default_rng(0)

MASK = "conv5=chn,row,col\n2,4,6\n1,2,5\n3\nfc3=chn\n4,1\nconv1=col\n7\nconv2=\n"


def test_a_mask_counts_from_one_and_we_from_zero(tmp_path):
    path = tmp_path / "m.dmask.csv"
    path.write_text(MASK)
    masks = read_dmask(path)
    assert masks == {
        "conv5": {"channel": [1, 3, 5], "row": [0, 1, 4], "column": [2]},
        "fc3": {"channel": [3, 0]},
        "conv1": {"column": [6]},
        "conv2": {},
    }
    assert list(masks) == ["conv5", "fc3", "conv1", "conv2"]
    assert write_dmask(tmp_path / "again.dmask.csv", masks).read_text() == MASK


def test_axes_keep_their_order_and_windows_its_line_ends(tmp_path):
    path = tmp_path / "m.dmask.csv"
    path.write_bytes(b"\xef\xbb\xbfconv5=col,chn,\r\n3\r\n\r\n1,2\r\n")
    assert read_dmask(path) == {"conv5": {"column": [2], "channel": [0, 1]}}
    assert list(read_dmask(path)["conv5"]) == ["column", "channel"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv5=chn\n1,0\n", "line 2: axis chn of conv5: '0' is not a number from 1"),
        ("conv5=chn\n1,,2\n", "line 2: axis chn of conv5: '' is not a number"),
        ("conv5=chn\n-1\n", "line 2: axis chn of conv5: '-1' is not"),
        ("conv5=chn\n2.0\n", "line 2: axis chn of conv5: '2.0' is not"),
        ("conv5=chn\n2,2\n", "line 2: axis chn of conv5: 2 stands twice"),
        ("conv5=chn,row\n2\n", "line 2: axis row of conv5: '' is not a number"),
        ("conv5=chn,row\n2\nconv4=chn\n1\n", "line 3: axis row of conv5: 'conv4=chn' is not a number"),
        ("conv5=channel\n2\n", "line 1: 'channel' is no axis; the axes are chn, row, col"),
        ("conv5=chn,chn\n2\n3\n", "line 1: 'chn' stands twice"),
        ("conv5=chn\n2\n3\n", "line 3: '3' belongs to no layer"),
        ("=chn\n2\n", "line 1: '=chn' belongs to no layer"),
        ("conv5=\n\nconv5=\n", "line 3: layer 'conv5' stands twice"),
        ("\n", "no layer in it"),
    ],
)
def test_what_is_no_mask(tmp_path, text, message):
    path = tmp_path / "m.dmask.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_dmask(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_mask_that_is_no_text_or_not_there(tmp_path):
    (tmp_path / "m.dmask.csv").write_bytes(b"\x89HDF\xff")
    with pytest.raises(DataError, match="not a text in UTF-8"):
        read_dmask(tmp_path / "m.dmask.csv")
    with pytest.raises(MissingInputError):
        read_dmask(tmp_path / "n.dmask.csv")


@pytest.mark.parametrize("masks", [{"a=b": {}}, {"a": {"chn": [0]}}, {"a": {"row": []}}, {"a": {"row": [-1]}}])
def test_a_mask_that_could_not_be_read_again_is_not_written(tmp_path, masks):
    with pytest.raises(ValueError, match="masks: expected"):
        write_dmask(tmp_path / "m.dmask.csv", masks)
    assert not (tmp_path / "m.dmask.csv").exists()


STIM = """type=image
path=pictures
title=two cats, and a dog
data=stimID,onset,duration,label,condition,RT
cats/1.jpg,0.0,1.5,-1,cat,0.4
dog.jpg,1e-07,0.1,2,a dog,nan
cats/1.jpg,2.30000000000000004,1.0,1,,0.30000000000000004
"""


def test_a_stimulus_table_has_typed_columns_and_loses_nothing(tmp_path):
    path = tmp_path / "s.stim.csv"
    path.write_text(STIM)
    stim = read_stim(path)
    assert (stim.kind, stim.folder, dict(stim.header)) == ("image", "pictures", {"title": "two cats, and a dog"})
    assert stim.ids == ["cats/1.jpg", "dog.jpg", "cats/1.jpg"]
    assert list(stim.table) == ["stimID", "onset", "duration", "label", "condition", "RT"]
    assert stim.table["label"].dtype == np.int64
    assert stim.table["label"].tolist() == [-1, 2, 1]
    assert stim.table["condition"].tolist() == ["cat", "a dog", ""]
    np.testing.assert_array_equal(stim.table["RT"], [0.4, np.nan, 0.30000000000000004])
    again = write_stim(tmp_path / "t.stim.csv", stim)
    assert again.read_text() == STIM.replace("2.30000000000000004", "2.3")
    pd.testing.assert_frame_equal(read_stim(again).table, stim.table, check_exact=True)
    assert read_stim(again).header == stim.header


def test_frames_of_a_film_are_numbers_and_clips_are_files(tmp_path):
    path = tmp_path / "s.stim.csv"
    path.write_text("type=video\npath=film.mp4\ndata=onset,stimID\n0,3\n1,25\n")
    film = read_stim(path)
    assert film.table["stimID"].dtype == np.int64
    assert film.ids == ["3", "25"]
    pd.testing.assert_frame_equal(read_stim(write_stim(tmp_path / "t.stim.csv", film)).table, film.table)
    path.write_text("type=video_clip\npath=clips\ndata=stimID\n1.mp4\n02\n")
    assert read_stim(path).ids == ["1.mp4", "02"]
    (tmp_path / "clips").mkdir()
    for name in ("1.mp4", "02"):
        (tmp_path / "clips" / name).touch()
    clips = stimuli_of(path)
    assert clips.ids == ["1.mp4", "02"] and set(clips.table["modality"]) == {"video"}
    with pytest.raises(MissingInputError, match=r"film path=.* not found"):
        stimuli_of(tmp_path / "t.stim.csv")


def test_frames_of_a_film_are_pictures_by_their_numbers(tmp_path):
    write_film(tmp_path / "film.mp4", greys(20))
    (tmp_path / "f.stim.csv").write_text("type=video\npath=film.mp4\ndata=stimID\n20\n1\n8\n20\n")
    frames = stimuli_of(tmp_path / "f.stim.csv")
    assert frames.ids == ["20", "1", "8"] and set(frames.table["modality"]) == {"image"}
    assert [round(np.mean(frames.read(row)) / 10) for row in range(3)] == [19, 0, 7]
    np.testing.assert_allclose(frames.clips, [(1.9, 2.0), (0, 0.1), (0.7, 0.8)])
    assert not unreadable(frames) and len(set(frames.with_hashes().table["sha256"])) == 3
    np.testing.assert_allclose(pixels(frames)[:, 0] * 25.5, [19, 0, 7], atol=0.3)
    (tmp_path / "f.stim.csv").write_text("type=video\npath=film.mp4\ndata=stimID\n21\n")
    with pytest.raises(DataError, match=r"f\.stim\.csv: stimID 21: .*film\.mp4 has 20 frames"):
        stimuli_of(tmp_path / "f.stim.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STIM.replace("type=image", "type=sound"), "type=sound is not known; it is image, video, video_clip"),
        (STIM.replace("type=image\n", ""), "no line type="),
        (STIM.replace("path=pictures", "pictures"), "line 2: 'pictures' is no key=value"),
        (STIM.replace("title=", "path="), "line 3: 'path' stands twice"),
        (STIM.split("data=")[0], "no line data="),
        (STIM.split("cats/")[0], "no stimuli below"),
        (STIM.replace("stimID", "stim_id"), "line 4: no column stimID"),
        (STIM.replace(",RT", ",label"), "line 4: column 'label' stands twice"),
        (STIM.replace(",RT", ","), "line 4: column '' stands twice or has no name"),
        (STIM.replace("a dog", "dog, big"), "line 6: 7 values under 6 columns; values cannot have commas"),
        (STIM.replace("dog.jpg,1e-07", "dog.jpg,soon"), "line 6: onset 'soon' is not a number"),
        (STIM.replace(",-1,", ",1.0,"), "line 5: label '1.0' is not a whole number"),
        (STIM.replace(",-1,", f",{2**63},"), "line 5: label .* has more than 64 bits"),
        (STIM.replace("dog.jpg", " "), "line 6: stimID ' ' is no stimulus"),
        ("type=video\npath=f.mp4\ndata=stimID\n\n0\n", "line 5: stimID '0' is no stimulus"),
        ("type=video\npath=f.mp4\ndata=stimID\na.jpg\n", "line 4: stimID 'a.jpg' is not a whole number"),
    ],
)
def test_what_is_no_stimulus_table(tmp_path, text, message):
    path = tmp_path / "s.stim.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_stim(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "sound"},
        {"folder": "a=b"},
        {"header": {"type": "x"}},
        {"header": {"title": "a\nb"}},
        {"table": pd.DataFrame({"stimID": ["a,b"]})},
        {"table": pd.DataFrame({"stimID": ["a\x1d"]})},
        {"table": pd.DataFrame({"stimID": [""]})},
        {"table": pd.DataFrame({"stimID": [3]})},
        {"table": pd.DataFrame({"stimID": ["a"], "label": [1.5]})},
        {"table": pd.DataFrame({"stimID": ["a"], "condition": [np.nan]})},
        {"table": pd.DataFrame({"label": [1]})},
    ],
)
def test_what_dnnbrain_could_not_read_is_not_written(tmp_path, changed):
    content = {"kind": "image", "folder": "p", "table": pd.DataFrame({"stimID": ["a"]}), **changed}
    with pytest.raises(ValueError, match="stim: expected"):
        write_stim(tmp_path / "s.stim.csv", StimFile(**content))
    assert not (tmp_path / "s.stim.csv").exists()


def test_pictures_of_a_stimulus_table_are_found_beside_it_or_where_one_works(tmp_path, monkeypatch):
    for name in ("cats/1.jpg", "dog.jpg", "other.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).touch()
    (tmp_path / "tables").mkdir()
    for path in (tmp_path / "s.stim.csv", tmp_path / "tables" / "s.stim.csv"):
        path.write_text(STIM)
        monkeypatch.chdir(tmp_path)
        found = stimuli_of(path)
        assert found.ids == ["cats/1.jpg", "dog.jpg"]
        assert all(one.is_file() for one in found.paths)
    monkeypatch.chdir(tmp_path / "tables")
    with pytest.raises(MissingInputError, match="folder path=pictures not found"):
        stimuli_of(path)
    (tmp_path / "s.stim.csv").write_text(STIM.replace("dog.jpg", "wolf.jpg"))
    with pytest.raises(MissingInputError, match=r"1 of 2 files are not in .* \(wolf.jpg\)"):
        stimuli_of(tmp_path / "s.stim.csv")


def dnnbrains_activations(path, layers):
    """A file as DNNBrain writes it."""
    with h5py.File(path, "w") as file:
        for name, values in layers.items():
            file.create_dataset(name, data=values, compression="gzip")


LAYERS = {
    "conv1": RNG.normal(size=(5, 4, 3, 2)).astype(np.float32),
    "fc": RNG.normal(size=(5, 7, 1, 1)).astype(np.float32),
}


def test_activations_are_read_by_block_and_written_again(tmp_path):
    dnnbrains_activations(tmp_path / "x.act.h5", LAYERS)
    layers = read_layers(tmp_path / "x.act.h5")
    flat = LAYERS["conv1"].reshape(5, -1)
    assert layers["conv1"].unit_shape == (4, 3, 2)
    for columns in (slice(None), slice(0, 6), slice(5, 13), slice(7, 8), slice(3, 3), slice(0, 99), slice(1, 20, 4)):
        np.testing.assert_array_equal(layers["conv1"][:, columns], flat[:, columns])
    np.testing.assert_array_equal(layers["conv1"][[3, 1], np.array([2, 0])], flat[:, [2, 0]][[3, 1]])
    groups = [Group(name, layer, shape=layer.unit_shape) for name, layer in reversed(layers.items())]
    write_act(tmp_path / "y.act.h5", groups)
    with h5py.File(tmp_path / "y.act.h5") as file:
        assert list(file) == ["fc", "conv1"]
        assert not file.attrs
        for name, values in LAYERS.items():
            np.testing.assert_array_equal(file[name][()], values)
            assert file[name].dtype == np.float32
            assert file[name].compression == "gzip"


def test_many_activations_go_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("bidsdnn.bids.dnnbrain.arrays._CHUNK_VALUES", 4096)
    monkeypatch.setattr("bidsdnn.bids.dnnbrain.arrays._BLOCK_VALUES", 30_000)
    values = RNG.normal(size=(130, 23, 3, 5))
    tokens = RNG.normal(size=(130, 6, 8)).astype(np.float32)
    groups = [Group("c", values.reshape(130, -1), shape=(23, 3, 5)), Group("t", tokens.reshape(130, -1), shape=(6, 8))]
    last = values.transpose(0, 2, 3, 1).reshape(130, -1)
    groups.append(Group("s", last, shape=(3, 5, 23), channel_axis=2))
    groups.append(Group("w", tokens.reshape(130, -1), shape=(6, 8), channel_axis=0))
    write_act(tmp_path / "x.act.h5", groups)
    with h5py.File(tmp_path / "x.act.h5") as file:
        np.testing.assert_array_equal(file["c"][()], values)
        assert file["c"].dtype == np.float64
        np.testing.assert_array_equal(file["s"][()], values)
        np.testing.assert_array_equal(file["t"][()], tokens.transpose(0, 2, 1)[..., None])
        np.testing.assert_array_equal(file["w"][()], tokens[..., None])
    with pytest.raises(ValueError, match="up to three axes"):
        write_act(tmp_path / "z.act.h5", [Group("v", np.zeros((2, 16)), shape=(2, 2, 2, 2))])
    with pytest.raises(ValueError, match="without '/'"):
        write_act(tmp_path / "z.act.h5", [Group("a/b", np.zeros((2, 16)))])


def test_activations_are_joined_with_their_stimuli(tmp_path):
    path = tmp_path / "x.act.h5"
    dnnbrains_activations(path, LAYERS)
    with pytest.raises(MissingInputError, match=r"no .stim.csv lies beside it; put x.stim.csv there"):
        read_act(path)
    table = pd.DataFrame({"stimID": list("edcba")})
    write_stim(tmp_path / "other.stim.csv", StimFile("image", "p", table))
    patterns = read_act(path, network="mine")
    assert patterns.ids == list("edcba")
    assert [(group.name, group.network, group.shape) for group in patterns.groups] == [
        ("conv1", "mine", (4, 3, 2)),
        ("fc", "mine", (7, 1, 1)),
    ]
    np.testing.assert_array_equal(patterns.groups[1].values[:, :], LAYERS["fc"][:, :, 0, 0])
    write_stim(tmp_path / "another.stim.csv", StimFile("image", "p", table[::-1]))
    with pytest.raises(MissingInputError, match=r"more than one .stim.csv lies beside it"):
        read_act(path)
    write_stim(tmp_path / "x.stim.csv", StimFile("image", "p", table[::-1]))
    assert read_act(path).ids == list("abcde")
    with pytest.raises(DataError, match="5 rows for 4 stimuli"):
        read_act(path, StimFile("image", "p", table[:4]))


def test_a_stimulus_that_stands_twice_has_one_row(tmp_path):
    path = tmp_path / "x.act.h5"
    stim = StimFile("image", "p", pd.DataFrame({"stimID": ["b", "a", "b", "c", "a"]}))
    repeated = {name: values[[0, 1, 0, 3, 1]] for name, values in LAYERS.items()}
    dnnbrains_activations(path, repeated)
    patterns = read_act(path, stim)
    assert patterns.ids == ["b", "a", "c"]
    np.testing.assert_array_equal(patterns.groups[1].values[:, :], LAYERS["fc"][[0, 1, 3], :, 0, 0])
    dnnbrains_activations(path, LAYERS)
    with pytest.raises(DataError, match="conv1: rows 1 and 3 are both 'b' and differ"):
        read_act(path, stim)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.create_dataset("x", data=np.zeros((5, 4))), r"x has shape \(5, 4\); expected"),
        (lambda file: file.create_dataset("x", data=np.zeros((4, 2, 1, 1))), "conv1 has 5 stimuli and x has 4"),
        (lambda file: file.create_group("x"), "x is a group"),
        (lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/a")), "x is a link into other.h5"),
        (lambda file: file.__setitem__("x", h5py.SoftLink("/conv1")), "x is a link, which is not followed"),
        (lambda file: file.create_dataset("x", data=["text"] * 5), "x holds object and not numbers"),
        (
            lambda file: file.create_dataset("x", (5, 1, 1, 1), "f4", external=[("other.bin", 0, 20)]),
            "x lies in other files",
        ),
        (lambda file: file.create_virtual_dataset("x", virtual_layout()), "x lies in other files"),
    ],
)
def test_what_are_no_activations(tmp_path, damage, message):
    path = tmp_path / "x.act.h5"
    dnnbrains_activations(path, {"conv1": LAYERS["conv1"]})
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(DataError, match=message) as caught:
        read_layers(path)
    assert "\n" not in str(caught.value)


def virtual_layout():
    layout = h5py.VirtualLayout((5, 1, 1, 1), "f4")
    layout[...] = h5py.VirtualSource("other.h5", "a", (5, 1, 1, 1))
    return layout


def test_damaged_and_empty_files_of_arrays(tmp_path):
    path = tmp_path / "x.act.h5"
    dnnbrains_activations(path, {})
    with pytest.raises(DataError, match="no layer in it"):
        read_layers(path)
    path.write_bytes(b"no HDF5")
    for read in (read_layers, read_roi, read_rdm):
        with pytest.raises(DataError, match="not a readable HDF5 file"):
            read(path)
        with pytest.raises(MissingInputError):
            read(tmp_path / "nothing.h5")
    gaps = LAYERS["fc"].copy()
    gaps[3, 5] = np.nan
    dnnbrains_activations(path, {"fc": gaps})
    with pytest.raises(DataError, match="fc has NaN or infinite activations in row 4"):
        read_layers(path)["fc"][:, :]


def test_regions_are_written_as_they_were_read(tmp_path):
    values = RNG.normal(size=(6, 2))
    with h5py.File(tmp_path / "x.roi.h5", "w") as file:
        file.attrs["roi"] = ["V1", "ré/gion"]
        file["data"] = values
    names, read = read_roi(tmp_path / "x.roi.h5")
    assert names == ["V1", "ré/gion"]
    np.testing.assert_array_equal(read, values)
    write_roi(tmp_path / "y.roi.h5", names, read)
    with h5py.File(tmp_path / "y.roi.h5") as file:
        assert file.attrs["roi"].tolist() == names
        np.testing.assert_array_equal(file["data"][()], values)
        assert file["data"].compression is None
    with pytest.raises(ValueError, match="a column for each of 1 names"):
        write_roi(tmp_path / "z.roi.h5", ["V1"], values)
    with h5py.File(tmp_path / "x.roi.h5", "a") as file:
        file.attrs["roi"] = ["V1", "V1"]
    with pytest.raises(DataError, match="for 1 names; name each column once"):
        read_roi(tmp_path / "x.roi.h5")
    with h5py.File(tmp_path / "x.roi.h5", "a") as file:
        del file["data"]
    with pytest.raises(DataError, match="expected the attribute roi"):
        read_roi(tmp_path / "x.roi.h5")


def test_rdms_are_written_as_they_were_read(tmp_path):
    pairs = np.array([pdist(RNG.normal(size=(6, 4))) for _ in range(3)])
    for kind, rdms in (("bRDM", {"2": pairs[0], "1": pairs[1]}), ("dRDM", {"conv2": pairs, "conv1": pairs[:1]})):
        path = write_rdm(tmp_path / "x.rdm.h5", kind, rdms)
        with h5py.File(path) as file:
            assert file.attrs["type"] == kind
            assert list(file) == list(rdms)
        again, read = read_rdm(path)
        assert again == kind
        for name, rdm in rdms.items():
            np.testing.assert_array_equal(read[name], rdm)
    for kind, rdm in (("bRDM", pairs), ("dRDM", pairs[0]), ("bRDM", np.zeros(7)), ("RDM", pairs)):
        with pytest.raises(ValueError, match="expected"):
            write_rdm(tmp_path / "y.rdm.h5", kind, {"a": rdm})
    with h5py.File(tmp_path / "x.rdm.h5", "a") as file:
        file["link"] = h5py.ExternalLink("y.h5", "a")
    with pytest.raises(DataError, match=r"link is a link into y.h5"):
        read_rdm(tmp_path / "x.rdm.h5")
