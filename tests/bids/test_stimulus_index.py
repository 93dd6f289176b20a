from __future__ import annotations

from pathlib import Path

import pytest

from bidsdnn.bids.stimulus_index import StimulusIndex
from bidsdnn.errors import DataError
from bidsdnn.stimuli import modality


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset" / "stimuli"
    touch(
        folder,
        "dog/dog_12s.jpg",
        "cat/1.png",
        "dog/1.png",
        "func/f013.bmp",
        "imagenet/n03131574/n03131574_8247.JPEG",
        "n03626115_19498.JPEG",
        "3626115.019498.png",
        "Upper.PNG",
        "upper/x.png",
        "stim-face01_image.png",
        "stim-face01_image.json",
        "stim-clip_part-a_video.mp4",
        "sound.wav",
        "sound.txt",
        "twin/a.png",
        "twin/A.png",
        "Drum corps/v Drum.mp4",
        "stimuli/inner.png",
        ".hidden.png",
        "._dog.jpg",
        ".git/secret.png",
    )
    return folder


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("dog/dog_12s.jpg", "dog/dog_12s.jpg"),
        ("stimuli\\dog\\dog_12s.jpg", "dog/dog_12s.jpg"),
        ("/stimuli/dog/dog_12s.jpg", "dog/dog_12s.jpg"),
        ("/dog/dog_12s.jpg", "dog/dog_12s.jpg"),
        ("./dog//dog_12s.jpg", "dog/dog_12s.jpg"),
        ("DOG/Dog_12s.JPG", "dog/dog_12s.jpg"),
        ("dog_12s.jpg", "dog/dog_12s.jpg"),
        ("dog_12s", "dog/dog_12s.jpg"),
        ("dog/dog_12s.png", "dog/dog_12s.jpg"),
        ("cat/1", "cat/1.png"),
        ("n03626115_19498", "n03626115_19498.JPEG"),
        ("3626115.019498", "3626115.019498.png"),
        ("n03131574_8247.JPEG", "imagenet/n03131574/n03131574_8247.JPEG"),
        ("upper.png", "Upper.PNG"),
        ("face01", "stim-face01_image.png"),
        ("stim-face01", "stim-face01_image.png"),
        ("stim-face01_image", "stim-face01_image.png"),
        ("clip", "stim-clip_part-a_video.mp4"),
        ("sound", "sound.wav"),
        ("sound.txt", "sound.txt"),
        ("twin/A.png", "twin/A.png"),
        ("Drum corps/v Drum.mp4", "Drum corps/v Drum.mp4"),
        ("stimuli/inner.png", "stimuli/inner.png"),
        (" dog/dog_12s.jpg ", "dog/dog_12s.jpg"),
    ],
)
def test_values_are_found_however_they_are_written(root, value, found):
    resolved = StimulusIndex(root).resolve(value)
    assert (resolved.stimulus_id, resolved.path, resolved.status) == (found, root / found, "found")


@pytest.mark.parametrize(
    ("value", "tidy"),
    [
        ("1.png", "1.png"),
        ("twin/a.PNG", "twin/a.PNG"),
        ("stimuli/none.png", "none.png"),
        (".hidden.png", ".hidden.png"),
        ("face", "face"),
        ("3626115.019499", "3626115.019499"),
        ("x" * 5000, "x" * 5000),
        ("nul\0", "nul\0"),
    ],
)
def test_ambiguous_and_absent_values_are_missing(root, value, tidy):
    resolved = StimulusIndex(root).resolve(value)
    assert (resolved.stimulus_id, resolved.path, resolved.status) == (tidy, None, "missing")


def test_an_absolute_path_into_the_folder_is_found(root):
    index = StimulusIndex(root)
    assert index.resolve(str(root / "cat" / "1.png")).stimulus_id == "cat/1.png"
    assert index.resolve(str(root / "cat" / "9.png")).status == "missing"


@pytest.mark.parametrize("value", ["../x.png", "dog/../dog/1.png", "/etc/passwd", "C:\\pics\\dog_12s.jpg", "..\\x"])
def test_values_that_leave_the_folder_are_errors(root, value):
    with pytest.raises(DataError, match="leaves the stimuli folder"):
        StimulusIndex(root).resolve(value)


def test_links_are_followed_inside_and_refused_outside(root, tmp_path):
    touch(tmp_path, "elsewhere/secret.png")
    (root / "inside.png").symlink_to("cat/1.png")
    (root / "outside.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (root / "broken_outside.png").symlink_to(tmp_path / "nowhere.png")
    (root / "broken_inside.png").symlink_to("nowhere.png")
    (root / "loop").symlink_to(".")
    (root / "self").symlink_to("self")
    (root / "again").symlink_to("cat")
    index = StimulusIndex(root)
    assert index.resolve("inside.png").status == "found"
    assert index.resolve("broken_inside.png").status == "missing"
    for value in ("outside.png", "outside/secret.png", "broken_outside.png"):
        with pytest.raises(DataError, match="leaves the stimuli folder"):
            index.resolve(value)
    assert len(set(index.files)) == len(index.files)
    assert not any(name.startswith(("loop/", "outside/")) for name in index.files)


def test_git_annex_links_are_of_the_dataset(root):
    objects = root.parent / ".git" / "annex" / "objects"
    touch(objects, "here.png")
    (root / "annexed.png").symlink_to("../.git/annex/objects/here.png")
    (root / "gone.png").symlink_to("../.git/annex/objects/gone.png")
    index = StimulusIndex(root)
    assert index.resolve("annexed.png").status == "found"
    gone = index.resolve("gone")
    assert (gone.stimulus_id, gone.path, gone.status) == ("gone.png", root / "gone.png", "datalad")


def test_a_linked_folder_is_the_stimuli_folder(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    resolved = StimulusIndex(tmp_path / "link").resolve("cat/1.png")
    assert resolved.path == tmp_path / "link" / "cat" / "1.png"
    assert resolved.status == "found"


def test_a_folder_that_does_not_exist_has_no_files(tmp_path):
    index = StimulusIndex(tmp_path / "none")
    assert len(index) == 0
    assert index.resolve("face").stimulus_id == "face"


def test_modality_follows_the_extension():
    names = ["a/b.JPEG", "x.mp4", "x.wav", "face", "x.tsv"]
    assert [modality(name) for name in names] == ["image", "video", "audio", "other", "other"]
