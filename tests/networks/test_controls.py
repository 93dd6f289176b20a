"""Features computed from stimuli: each of its kinds, as a network of one layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image

from bidsdnn.bids.arrays import read_activations
from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.methods import lowlevel
from bidsdnn.networks import controls, zoo
from bidsdnn.networks.extract import extract
from bidsdnn.stimuli import LOADERS, Stimuli, load_audio, load_video
from bidsdnn.stimuli.transcripts import transcript_path, word_onsets
from tests.stimuli.conftest import write_film

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier"
        name = "clicks 2"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "c"
    item [12]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2
        intervals: size = 5
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "say ~~7~~"
        intervals [3]:
            xmin = 0.5
            xmax = 1
            text = "sp"
        intervals [4]:
            xmin = 1
            xmax = 1.5
            text = "<laugh>"
        intervals [5]:
            xmin = 1.5
            xmax = 2
            text = "end"
""".replace("~", '"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture, a film of noise that moves to the right, a tone, and words."""
    path = tmp_path_factory.mktemp("stimuli")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path / "picture.png")
    noise = np.kron(rng.integers(0, 256, (16, 16), dtype=np.uint8), np.ones((4, 4), np.uint8))
    frames = np.stack([np.roll(noise, k, axis=1) for k in range(20)])
    write_film(path / "film.mp4", np.repeat(frames[..., None], 3, axis=-1))
    soundfile.write(path / "sound.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000), 16000)
    for name in ("film", "sound"):
        (path / f"{name}_words.tsv").write_text("onset\tword\n0.1\ta\n0.3\tb\n0.4\tn/a\n1.2\tc\n")
    return path


def one(folder, kind: str) -> Stimuli:
    return Stimuli.from_folder(folder, [kind]).with_hashes()


KINDS = [(name, kind) for name, kinds in controls.MODALITIES.items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_feature_is_extracted_as_a_layer_is(folder, tmp_path, name, kind):
    network = controls.control(name, kind)
    stimuli = controls.readings(name, one(folder, kind))
    extract(network, stimuli, [name], tmp_path / "a.h5", batch_size=2)
    ids, (values,) = read_activations(tmp_path / "a.h5", [name])
    assert (ids, values.shape) == (stimuli.ids, (1, controls.UNITS[name]))
    assert np.isfinite(values[:, :]).all()
    assert network.label == name and network.shapes() == {name: ("Feature", (controls.UNITS[name],))}


def test_the_tables_agree():
    assert set(controls.FEATURES) == set(controls.MODALITIES) == set(controls.UNITS)
    assert {kind for _, kind in KINDS} <= set(LOADERS)


def values(name: str, stimuli: Stimuli) -> np.ndarray:
    read = controls.readings(name, stimuli)
    return controls.control(name, stimuli.table["modality"].iloc[0]).preprocess(read.read(0)).numpy()


def test_values_are_those_of_the_functions(folder):
    picture = np.asarray(Image.open(folder / "picture.png"))[None]
    np.testing.assert_allclose(values("gabor", one(folder, "image")), lowlevel.gabor(picture)[0], rtol=1e-5)
    film = load_video(folder / "film.mp4", rate=4.0)
    assert len(film.frames) == 8
    expected = lowlevel.contrast(film.frames).mean(axis=0)
    np.testing.assert_allclose(values("contrast", one(folder, "video")), expected, rtol=1e-5)
    np.testing.assert_allclose(
        values("mel", one(folder, "audio")), lowlevel.mel(*load_audio(folder / "sound.wav")), rtol=1e-5
    )
    speed = values("flow", one(folder, "video"))
    assert speed[4:].argmax() == 0  # to the right, one pixel of 64 ten times a second
    assert speed[2] == pytest.approx(10 / 64, rel=0.25)


def test_words_and_place_are_those_of_the_clip(folder):
    clips = one(folder, "audio").cut(1.0)
    np.testing.assert_allclose(values("wordrate", clips), [2, 4, 4, 0, 0])
    np.testing.assert_allclose(values("wordrate", clips.select(["sound.wav@1"])), [1, 4, 0, 0, 0])
    np.testing.assert_allclose(values("position", clips), lowlevel.position(0, 1, 2), rtol=1e-6)
    whole = one(folder, "video")
    np.testing.assert_allclose(values("wordrate", whole), [1.5, 4, 0, 2, 0])


def test_large_pictures_are_reduced(tmp_path):
    Image.new("RGB", (1200, 900), (200, 100, 50)).save(tmp_path / "large.png")
    found = values("colour", one(tmp_path, "image"))
    np.testing.assert_allclose(found, lowlevel.colour(np.full((1, 8, 8, 3), (200, 100, 50), np.uint8))[0], atol=1e-3)


def test_features_of_another_kind_and_unknown_ones_are_refused():
    with pytest.raises(ConfigError, match="--features mel: computed of audio, not of image"):
        controls.control("mel", "image")
    with pytest.raises(ConfigError, match=r"--features lumminance: did you mean.*luminance"):
        controls.check(("lumminance",))
    with pytest.raises(ConfigError, match="twice"):
        controls.check(("mel", "mel"))


def test_a_clip_too_short_for_a_feature_is_named(folder, tmp_path):
    stimuli = one(folder, "video")
    table = stimuli.table.assign(stimulus_id="short", start=0.0, stop=0.1)
    stimuli = controls.readings("flow", replace(stimuli, table=table))
    with pytest.raises(DataError, match=r"short: not fit for flow .*at least 2"):
        extract(controls.control("flow", "video"), stimuli, ["flow"], tmp_path / "a.h5")


@pytest.mark.parametrize("kept", ["long", "short", "utf-16"])
def test_text_grids(tmp_path, kept):
    text = LONG
    if kept == "short":
        text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n'
        text += '"IntervalTier"\n"word"\n0\n2\n2\n'
        text += '0.25\n1.5\n"say"\n1.5\n2\n"end"\n'
    (tmp_path / "a.TextGrid").write_text(text, encoding="utf-16" if kept == "utf-16" else "utf-8")
    assert transcript_path(tmp_path / "a.wav") == tmp_path / "a.TextGrid"
    np.testing.assert_array_equal(word_onsets(tmp_path / "a.TextGrid"), [0.25, 1.5])


def test_transcripts_that_cannot_be_used(tmp_path):
    with pytest.raises(MissingInputError, match=r"add a_words\.tsv with a column onset"):
        transcript_path(tmp_path / "a.wav")
    (tmp_path / "a.TextGrid").write_text(LONG.replace('"words"', '"phones"'))
    with pytest.raises(DataError, match="no tier called words; it has clicks 2, phones"):
        word_onsets(tmp_path / "a.TextGrid")
    (tmp_path / "a.TextGrid").write_text(LONG[:500])
    with pytest.raises(DataError, match=r"not a readable TextGrid|no tier called words"):
        word_onsets(tmp_path / "a.TextGrid")
    (tmp_path / "a.tsv").write_text("start\tword\n1\ta\n")
    with pytest.raises(DataError, match="no column onset; it has start, word"):
        word_onsets(tmp_path / "a.tsv")
    (tmp_path / "a.tsv").write_text("onset\n1\nlate\n")
    with pytest.raises(DataError, match="onset 'late' is no number"):
        word_onsets(tmp_path / "a.tsv")


def test_a_sound_too_short_for_a_network_is_named(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(100, 0.1), 16000)
    network = zoo.build("vggish", weights="none", seed=0)
    with pytest.raises(DataError, match=r"short\.wav: .*0\.006 s is shorter than"):
        extract(network, one(tmp_path, "audio"), network.canonical()[:1], tmp_path / "a.h5")
