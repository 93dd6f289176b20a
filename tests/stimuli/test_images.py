"""Stimuli: identity, hashes, folders, and every way an image file can be strange."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.stimuli import LOADERS, Stimuli, file_sha256, load_image


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def table(*names: str, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stimulus_id": names,
            "filename": [f"{n}.png" for n in names],
            "modality": "image",
            "sha256": "",
            **columns,
        }
    )


def test_select_goes_by_identity_in_the_order_asked():
    stimuli = Stimuli(table("a", "b", "c", label=[1, 2, 3]), Path("root"))
    chosen = stimuli.select(["c", "a"])
    assert chosen.ids == ["c", "a"]
    assert list(chosen.table["label"]) == [3, 1]
    assert chosen.paths == [Path("root/c.png"), Path("root/a.png")]
    assert list(chosen.table.index) == [0, 1]
    assert (len(stimuli), len(chosen)) == (3, 2)


def test_select_names_unknown_ids():
    with pytest.raises(ValueError, match="2 unknown: 'x', 'y'"):
        Stimuli(table("a"), Path()).select(["a", "x", "y"])


def test_ids_must_be_unique_and_columns_complete():
    with pytest.raises(ValueError, match="'a' more than once"):
        Stimuli(table("a", "a"), Path())
    with pytest.raises(ValueError, match="sha256"):
        Stimuli(table("a").drop(columns="sha256"), Path())


@pytest.mark.parametrize("filename", ["../secret.png", "/etc/x.png", "a/../../b.png"])
def test_a_path_that_leaves_the_folder_is_refused(filename):
    with pytest.raises(DataError, match="leaves the stimuli folder"):
        Stimuli(table("a").assign(filename=filename), Path("stimuli"))


def test_hashes_are_those_of_the_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.png").write_bytes(b"two")
    hashed = Stimuli(table("b", "a"), tmp_path).with_hashes(workers=2)
    assert list(hashed.table["sha256"]) == [hashlib.sha256(b).hexdigest() for b in (b"two", b"one")]
    with pytest.raises(MissingInputError, match=r"c\.png: stimulus not found"):
        Stimuli(table("c"), tmp_path).with_hashes()


def test_from_folder_takes_images_only_and_survives_link_loops(tmp_path):
    for name in ("z.PNG", "sub/a.jpg", "sub/._a.jpg", ".hidden.png", ".git/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "annexed.png").symlink_to(tmp_path / "nowhere")
    stimuli = Stimuli.from_folder(tmp_path)
    assert stimuli.ids == ["annexed.png", "sub/a.jpg", "z.PNG"]
    assert set(stimuli.table["modality"]) <= set(LOADERS)


def test_from_folder_without_images(tmp_path):
    with pytest.raises(MissingInputError, match="no image"):
        Stimuli.from_folder(tmp_path)
    with pytest.raises(MissingInputError, match="not found"):
        Stimuli.from_folder(tmp_path / "absent")


def test_a_missing_image_and_a_datalad_link(tmp_path):
    with pytest.raises(MissingInputError, match="check the stimuli folder"):
        load_image(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "annex")
    with pytest.raises(MissingInputError, match="datalad get"):
        load_image(tmp_path / "b.png")
    with pytest.raises(MissingInputError, match="datalad get"):
        file_sha256(tmp_path / "b.png")


def saved(tmp_path: Path, image: Image.Image, suffix: str = ".png", **options: object) -> Path:
    image.save(path := tmp_path / f"image{suffix}", **options)
    return path


def test_rgb_is_untouched(tmp_path):
    loaded = load_image(saved(tmp_path, picture()))
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(picture()))


def test_transparency_is_laid_over_white(tmp_path):
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))
    pixels = np.asarray(load_image(saved(tmp_path, image)))
    assert pixels.tolist() == [[[255, 0, 0], [204, 204, 204]]]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert np.asarray(load_image(saved(tmp_path, grey))).tolist() == [[[255, 255, 255]]]


def test_a_transparent_palette_entry_is_white_and_others_keep_their_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert np.asarray(load_image(saved(tmp_path, image))).tolist() == [[[10, 20, 30], [0, 0, 0]]]
    pixels = np.asarray(load_image(saved(tmp_path, image, transparency=1)))
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32896, 128), (257, 1)])
def test_sixteen_bit_grey_is_scaled(tmp_path, value, expected):
    image = Image.fromarray(np.full((2, 3), value, np.uint16))
    for suffix in (".png", ".tif"):
        assert (np.asarray(load_image(saved(tmp_path, image, suffix))) == expected).all()


def test_grey_bilevel_and_cmyk(tmp_path):
    assert (np.asarray(load_image(saved(tmp_path, Image.new("L", (2, 2), 77)))) == 77).all()
    assert (np.asarray(load_image(saved(tmp_path, Image.new("1", (2, 2), 1)))) == 255).all()
    red = np.asarray(load_image(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), ".jpg", quality=100)))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 0.5), (np.int32, 70000)])
def test_pixels_without_a_defined_white_are_refused(tmp_path, dtype, value):
    path = saved(tmp_path, Image.fromarray(np.full((2, 2), value, dtype)), ".tif")
    with pytest.raises(DataError, match="store it as 8- or 16-bit"):
        load_image(path)


def test_orientation_tag_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    assert load_image(saved(tmp_path, picture(), ".jpg", exif=exif)).size == (30, 40)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], ".gif", save_all=True, append_images=frames[1:])
    assert np.asarray(load_image(path))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
def test_truncated_images_are_data_errors(tmp_path, suffix):
    content = saved(tmp_path, picture(), suffix).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in np.linspace(0, 0.6 * len(content), 15).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=f"cut{suffix}: not a readable image .*; replace the file"):
            load_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
def test_corrupt_bytes_never_escape_as_another_error(tmp_path, suffix):
    content = saved(tmp_path, picture(), suffix).read_bytes()
    path, rng, refused = tmp_path / f"noise{suffix}", np.random.default_rng(1), 0
    for _ in range(40):
        noisy = bytearray(content)
        for place in rng.integers(0, min(len(noisy), 200), 6):
            noisy[place] = rng.integers(256)
        path.write_bytes(bytes(noisy))
        try:
            assert load_image(path).mode == "RGB"
        except DataError:
            refused += 1
    assert refused > 0


def test_a_decompression_bomb_is_refused_without_decoding_it(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb.*store it smaller"):
        load_image(path)


def test_the_file_is_closed_and_the_pixels_stay(tmp_path):
    path = saved(tmp_path, picture())
    loaded = load_image(path, 0.0, 1.0)
    path.unlink()
    buffer = io.BytesIO()
    loaded.save(buffer, "PNG")
    assert buffer.tell() > 0


def test_pixels_are_pictures_at_a_low_resolution(tmp_path):
    from bidsdnn.stimuli import pixels

    values = np.zeros((8, 8, 3), dtype=np.uint8)
    values[:4, :, 0] = 200
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values[:, ::-1] // 2).save(tmp_path / "b.png")
    found = pixels(Stimuli.from_folder(tmp_path), size=2)
    expected = np.array([[[1, 0, 0]] * 2, [[0, 0, 0]] * 2]).ravel() * 200 / 255
    np.testing.assert_allclose(found, [expected, expected / 2], atol=1e-6)


def test_an_animation_says_that_its_first_frame_is_taken(tmp_path, caplog):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], ".gif", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO"):
        load_image(path)
    assert "image.gif: 2 frames; the first is taken" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        load_image(saved(tmp_path, frames[0], ".png"))
    assert not caplog.text
