"""DNNBrain's five formats: what is read is what DNNBrain means, a round trip loses nothing, damage is named."""

from __future__ import annotations

import pytest

from bidsdnn.bids.dnnbrain import read_dmask, write_dmask
from bidsdnn.errors import DataError, MissingInputError

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
