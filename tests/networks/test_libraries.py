"""Networks of other libraries, with random weights: each is its library's own, prepared for by its own records."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.networks import zoo

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (180, 240, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def same(network, module, batch) -> None:
    """The module gives what the library's own gives, bit for bit."""
    with torch.inference_mode():
        found, expected = network.module(batch), module.eval()(batch)
    found, expected = (next(iter(o.values())) if isinstance(o, dict) else o for o in (found, expected))
    assert torch.equal(found, expected)


def check_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    network = zoo.build(f"timm:{name}", weights="none", seed=1)
    assert (network.weights, network.seed, network.source) == ("none", 1, "timm")
    assert network.label == "timm+" + name.replace("_", "+") + "+none+seed1"
    torch.manual_seed(1)
    module = timm.create_model(name)
    record = timm.data.resolve_model_data_config(module)
    batch = timm.data.create_transform(**record, is_training=False)(PICTURE)[None]
    assert torch.equal(network.preprocess(PICTURE)[None], batch)
    same(network, module, batch)
    assert list(network.shapes(network.canonical())) == network.canonical()


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_timm(name):
    check_timm(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_more_of_timm(name):
    check_timm(name)


def test_timm_weights(tmp_path):
    pytest.importorskip("timm")
    one = zoo.build("timm:test_vit", weights="none", seed=3)
    torch.save({f"module.{key}": value for key, value in one.module.state_dict().items()}, tmp_path / "own.pth")
    network = zoo.build("timm:test_vit", weights=str(tmp_path / "own.pth"))
    assert network.weights == "own.pth"
    same(network, one.module, torch.rand(1, 3, 160, 160))
    with pytest.raises(DataError, match="missing, first"):
        zoo.build("timm:test_resnet", weights=str(tmp_path / "own.pth"))
    with pytest.raises(MissingInputError, match="timm:test_vit are not at hand"):
        zoo.build("timm:test_vit")
    with pytest.raises(ConfigError, match="no such file, and not one of"):
        zoo.build("timm:test_vit", weights="nosuch_tag")
    with pytest.raises(ConfigError, match=r"timm:resnet_18 is not known; did you mean .*resnet18"):
        zoo.build("timm:resnet_18")


def check_open_clip(name: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    network = zoo.build(f"open_clip:{name}", weights="none", seed=1)
    torch.manual_seed(1)
    both, _, transform = open_clip.create_model_and_transforms(name, load_weights=False)
    batch = transform(PICTURE)[None]
    assert torch.equal(network.preprocess(PICTURE)[None], batch)
    same(network, both.visual, batch)
    assert list(network.shapes(network.canonical())) == network.canonical()


@pytest.mark.parametrize("name", ["RN50"])
def test_open_clip(name):
    check_open_clip(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "convnext_tiny"])
def test_more_of_open_clip(name):
    check_open_clip(name)


def test_open_clip_weights():
    pytest.importorskip("open_clip")
    with pytest.raises(ConfigError, match="no default weights; write open_clip:RN50@TAG with one of openai"):
        zoo.build("open_clip:RN50")
    with pytest.raises(MissingInputError, match="open_clip:RN50@openai are not at hand"):
        zoo.build("open_clip:RN50", weights="openai")
    with pytest.raises(ConfigError, match=r"open_clip:RN51 is not known; did you mean .*RN50"):
        zoo.build("open_clip:RN51")


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
EYE = {**SMALL, "image_size": 32, "patch_size": 16}
CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture
def save(tmp_path):
    """Write a small network of one kind, of random weights, to a folder."""
    library = pytest.importorskip("transformers")

    def write(kind: str):
        torch.manual_seed(0)
        text = {**SMALL, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        if kind == "vit":
            module = library.ViTModel(library.ViTConfig(**EYE))
            processor = library.ViTImageProcessor(size={"height": 32, "width": 32})
        elif kind == "clip":
            module = library.CLIPModel(library.CLIPConfig(text_config=text, vision_config=EYE))
            processor = library.CLIPImageProcessor(**CROP)
        elif kind == "videomae":
            decoder = {f"decoder_{key}": value for key, value in SMALL.items()}
            module = library.VideoMAEModel(library.VideoMAEConfig(**EYE, **decoder, num_frames=4))
            processor = library.VideoMAEImageProcessor(**CROP)
        elif kind == "wav2vec2":
            more = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
            more |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
            module = library.Wav2Vec2Model(library.Wav2Vec2Config(**SMALL, **more))
            processor = library.Wav2Vec2FeatureExtractor()
        elif kind == "whisper":
            sizes = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
            sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 50, "d_model": 16}
            tokens = {f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "decoder_start")}
            module = library.WhisperModel(library.WhisperConfig(**sizes, **tokens))
            processor = library.WhisperFeatureExtractor()
        else:
            module, processor = library.BertModel(library.BertConfig(**SMALL, vocab_size=50)), None
        module.save_pretrained(tmp_path / kind)
        if processor is not None:
            processor.save_pretrained(tmp_path / kind)
        return module, processor, tmp_path / kind

    return write


def test_hf_pictures(save):
    module, processor, folder = save("vit")
    network = zoo.build(f"hf:{folder}")
    assert (network.name, network.modality, network.weights, network.seed) == ("hf:vit", "image", "pretrained", None)
    assert network.label == f"hf+vit+pretrained+{network.weights_sha256[:8]}"
    batch = processor(PICTURE, return_tensors="pt")["pixel_values"]
    assert torch.equal(network.preprocess(PICTURE)[None], batch)
    same(network, module, batch)
    assert {"layers.0", "layers.1", "layernorm"} <= set(network.canonical())
    one, same_seed, other = (zoo.build(f"hf:{folder}", weights="none", seed=seed) for seed in (1, 1, 2))
    assert one.weights_sha256 == same_seed.weights_sha256 != other.weights_sha256
    by_file = zoo.build(f"hf:{folder}", weights=str(folder / "model.safetensors"))
    same(by_file, module, batch)
    torch.save({"layernorm.weight": torch.ones(16), "other": torch.ones(2)}, folder / "few.pth")
    with pytest.raises(DataError, match=r"few\.pth: weights do not fit the network .*missing, first .*first 'other'"):
        zoo.build(f"hf:{folder}", weights=str(folder / "few.pth"))


def test_hf_takes_the_half_that_sees(save):
    module, processor, folder = save("clip")
    network = zoo.build(f"hf:{folder}")
    batch = processor(PICTURE, return_tensors="pt")["pixel_values"]
    same(network, module.vision_model, batch)
    assert network.shapes(["encoder.layers.1"])["encoder.layers.1"][1] == (5, 16)


def test_hf_films(save):
    module, processor, folder = save("videomae")
    network = zoo.build(f"hf:{folder}")
    clip = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), dtype=np.uint8)
    batch = processor(list(torch.from_numpy(clip).permute(0, 3, 1, 2)), return_tensors="pt")["pixel_values"]
    assert (network.modality, batch.shape) == ("video", (1, 4, 3, 32, 32))
    assert torch.equal(network.preprocess((clip, 7.5))[None], batch)
    same(network, module, batch)
    # At another rate, the frames on the screen 7.5 times a second around the middle: of 4 s at 30 a second, 2 s +- 1/4.
    assert "4 frames at 7.5 a second" in network.preprocessing
    long = np.random.default_rng(1).integers(0, 256, (120, 40, 60, 3), dtype=np.uint8)
    taken = [network.preprocess((long[k : k + 4], 7.5)) for k in range(117)]
    sampled = network.preprocess((long, 30.0))
    frames = [int(np.argmin([abs(one[0] - part).sum() for one in taken])) for part in sampled]
    assert np.diff(frames).tolist() == [4, 4, 4] and abs(np.mean(frames) - 59.5) <= 2
    # A rate that the processor or the network has been given goes before.
    processor.fps = 15
    processor.save_pretrained(folder)
    assert "4 frames at 15 a second" in zoo.build(f"hf:{folder}").preprocessing


@pytest.mark.parametrize(("kind", "shape"), [("wav2vec2", (16000,)), ("whisper", (80, 3000))])
def test_hf_sounds(save, kind, shape):
    module, processor, folder = save(kind)
    network = zoo.build(f"hf:{folder}")
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    batch = next(iter(processor(sound, sampling_rate=16000, return_tensors="pt").values()))
    assert (network.modality, network.preprocess((sound, 16000)).shape) == ("audio", shape)
    assert torch.equal(network.preprocess((sound, 16000))[None], batch)
    same(network, module.get_encoder() if kind == "whisper" else module, batch)


def test_hf_networks_that_cannot_be_had(save):
    _, _, folder = save("bert")
    with pytest.raises(ConfigError, match="neither sees nor hears"):
        zoo.build(f"hf:{folder}")
    with pytest.raises(MissingInputError, match="hf:some/where are not at hand"):
        zoo.build("hf:some/where")


class Bad:
    def __reduce__(self):
        return print, ("this ran",)


def test_hf_pickles_that_want_to_run_code_are_refused(save, capsys):
    _, _, folder = save("vit")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bad()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="would run code"):
        zoo.build(f"hf:{folder}")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("hf:a/b", "transformers", "transformers"),
        ("open_clip:RN50", "open_clip", "open_clip"),
    ],
)
def test_a_library_that_is_not_there_is_named(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {module} .*pip install bidsdnn\[{extra}\]"):
        zoo.build(name, weights="none")
