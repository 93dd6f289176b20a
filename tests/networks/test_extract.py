"""Extraction: the numbers of a hand-written hook, bit for bit, in a file whose bytes depend on nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bidsdnn.errors import ConfigError, DataError, MissingInputError, OutputError
from bidsdnn.networks import devices, zoo
from bidsdnn.networks import extract as module
from bidsdnn.networks.extract import estimate_bytes, extract
from bidsdnn.networks.network import Network
from bidsdnn.networks.work import contents
from bidsdnn.stimuli import Stimuli, load_image


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory) -> Stimuli:
    folder, rng = tmp_path_factory.mktemp("stimuli"), np.random.default_rng(0)
    for i in range(11):
        size = (70 + i, 90 - i, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"picture_{i:02d}.png")
    return Stimuli.from_folder(folder)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def by_hand(network: Network, layers: list[str], paths: list[Path]) -> dict[str, np.ndarray]:
    """Run one batch with one hook a layer."""
    kept: dict[str, np.ndarray] = {}
    handles = []
    for layer in layers:

        def keep(part: nn.Module, inputs: object, output: Tensor, layer: str = layer) -> None:
            first = output[0] if isinstance(output, tuple) else output
            kept[layer] = first.detach().clone().flatten(1).numpy()

        handles.append(network.module.get_submodule(layer).register_forward_hook(keep))
    with torch.no_grad():
        network.module(torch.stack([network.preprocess(load_image(path)) for path in paths]))
    for handle in handles:
        handle.remove()
    return kept


# The smallest of each family, each with a layer that an in-place ReLU follows, where there is one.
SMALLEST = {
    "demo": [], "alexnet": ["features.0"], "resnet18": ["conv1", "layer1.0.bn1"],
    "squeezenet1_1": ["features.3.expand1x1"], "vit_b_32": ["encoder.layers.encoder_layer_0.self_attention"],
    "swin_t": ["features.1.0.attn"], "convnext_tiny": ["features.1.0.block.0"], "densenet121": ["features.norm0"],
    "efficientnet_b0": ["features.0.1"], "googlenet": ["conv1.bn"], "mobilenet_v3_small": ["features.0.1"],
    "mnasnet0_5": ["layers.1"], "regnet_y_400mf": ["stem.1"], "shufflenet_v2_x0_5": ["conv1.1"],
    "vgg11": ["features.0"],
}  # fmt: skip
OTHERS = ["inception_v3", "maxvit_t", "resnext50_32x4d", "wide_resnet50_2", "vgg16_bn", "swin_v2_t", "mobilenet_v2"]


@pytest.mark.parametrize("name", [*SMALLEST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_activations_are_those_of_a_hand_written_hook(name, stimuli, tmp_path):
    network = zoo.build(name, weights="none")
    layers = network.in_order(network.canonical() + SMALLEST.get(name, []))
    extract(network, stimuli.select(stimuli.ids[:2]), layers, tmp_path / "a.h5", batch_size=2)
    found = read(tmp_path / "a.h5")
    for layer, expected in by_hand(network, layers, stimuli.paths[:2]).items():
        np.testing.assert_array_equal(found[layer], expected, err_msg=layer)


def test_the_file_says_what_it_is(stimuli, tmp_path):
    network = zoo.build("demo", seed=3)
    extract(network, stimuli, ["fc", "conv1", "fc"], tmp_path / "a.h5", batch_size=4)
    with h5py.File(tmp_path / "a.h5") as file:
        attrs = dict(file.attrs)
        assert list(file["stim_id"].asstr()) == stimuli.ids
        assert [text.decode() for text in file["stim_id"][:]] == stimuli.ids
        assert list(file["sha256"].asstr()) == [hashlib.sha256(p.read_bytes()).hexdigest() for p in stimuli.paths]
        assert tuple(file["conv1"].attrs["shape"]) == network.shapes(["conv1"])["conv1"][1]
        assert file["conv1"].shape == (11, np.prod(file["conv1"].attrs["shape"]))
        assert file["conv1"].dtype == np.float32
        assert file["conv1"].chunks is None
        assert set(file) == {"fc", "conv1", "stim_id", "sha256"}
    assert (attrs["network"], attrs["label"], attrs["weights"], attrs["seed"]) == ("demo", network.label, "none", 3)
    assert (attrs["weights_sha256"], attrs["preprocessing"]) == (network.weights_sha256, network.preprocessing)
    assert json.loads(attrs["layers"]) == ["fc", "conv1"]
    assert json.loads(attrs["versions"])["torch"].split("+")[0] == torch.__version__.split("+")[0]


@pytest.mark.parametrize("name", ["demo", "squeezenet1_1"])
def test_bytes_do_not_depend_on_workers_or_the_clock(name, stimuli, tmp_path):
    network = zoo.build(name, weights="none")
    digests = set()
    for workers in (1, 2, 3):
        path = tmp_path / f"{workers}.h5"
        extract(network, stimuli, network.canonical(), path, workers=workers, batch_size=2)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        time.sleep(0.6)
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["demo", "alexnet"])
def test_a_pictures_activations_do_not_depend_on_the_other_pictures(name, stimuli, tmp_path):
    network = zoo.build(name, weights="none")
    few = stimuli.select([stimuli.ids[i] for i in (9, 2, 7)])
    for table, file in ((stimuli, "all.h5"), (few, "few.h5")):
        extract(network, table, network.canonical(), tmp_path / file, batch_size=4)
    whole, part = read(tmp_path / "all.h5"), read(tmp_path / "few.h5")
    for layer in network.canonical():
        np.testing.assert_array_equal(part[layer], whole[layer][[9, 2, 7]])
        assert len(np.unique(part[layer], axis=0)) == 3


class Probe(nn.Module):
    """Gives what a test wants to see go wrong."""

    def __init__(self, bad: float = 0.0) -> None:
        super().__init__()
        self.first, self.odd, self.unused = nn.Flatten(), nn.Flatten(), nn.Flatten()
        self.bad = bad

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.odd(torch.where(y.sum(1, keepdim=True) == 0, self.bad, y))


def probe(bad: float = 0.0, size: int | None = 8) -> Network:
    def preprocess(image: Image.Image) -> Tensor:
        image = image.resize((size, size)) if size else image
        return torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1)

    return Network("probe", Probe(bad), preprocess, "none", "none", 0, "0" * 64)


def hooks(network: Network) -> int:
    return sum(len(part._forward_hooks) for part in network.module.modules())


@pytest.fixture
def with_black(stimuli, tmp_path) -> Stimuli:
    """Pictures, of which the eighth is black."""
    for i in range(10):
        Image.new("RGB", (8, 8), (0, 0, 0) if i == 7 else (i + 1, 0, 0)).save(tmp_path / f"{i}.png")
    return Stimuli.from_folder(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite(with_black, tmp_path, bad, workers):
    network = probe(bad)
    with pytest.raises(DataError, match=r"7\.png: activations of probe\+none\+seed0, layer odd, are not finite"):
        extract(network, with_black, ["first", "odd"], tmp_path / "a.h5", batch_size=3, workers=workers)
    assert not (tmp_path / "a.h5").exists()
    assert hooks(network) == 0
    extract(network, with_black, ["first"], tmp_path / "a.h5", batch_size=3)
    assert read(tmp_path / "a.h5")["first"][7].max() == 0


def test_a_sum_that_overflows_is_no_error(with_black, tmp_path):
    network = probe(3e38)
    extract(network, with_black, ["odd"], tmp_path / "a.h5", batch_size=10)
    assert np.isfinite(read(tmp_path / "a.h5")["odd"]).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_leave_no_file_and_no_hook(stimuli, tmp_path, workers):
    network = probe()
    for name in stimuli.table["filename"]:
        (tmp_path / name).write_bytes((stimuli.root / name).read_bytes())
    broken = Stimuli(stimuli.table, tmp_path).with_hashes()
    last = broken.paths[-1]
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(DataError, match=f"{last.name}: not a readable image"):
        extract(network, broken, ["first"], tmp_path / "a.h5", batch_size=2, workers=workers)
    last.unlink()
    with pytest.raises(MissingInputError, match=last.name):
        extract(network, broken, ["first"], tmp_path / "a.h5", batch_size=2, workers=workers)
    assert not (tmp_path / "a.h5").exists()
    assert hooks(network) == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["first", "unused"], "unused is never reached"),
        (["frist"], "'frist' is not in the network; did you mean first"),
        ([], "expected some"),
        (["stim_id"], "none named stim_id"),
    ],
)
def test_layers_that_cannot_be_had(stimuli, tmp_path, layers, message):
    with pytest.raises(ConfigError, match=message):
        extract(probe(), stimuli, layers, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_other_requests_that_make_no_sense(stimuli, tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(ConfigError, match=r"gives shape .* for .*picture_01\.png and .* for .*picture_00\.png"):
        extract(probe(size=None), stimuli, ["first"], path)
    with pytest.raises(ConfigError, match=r"takes audio, and 11 of 11 stimuli are not: picture_00\.png is image"):
        extract(replace(probe(), modality="audio"), stimuli, ["first"], path)
    with pytest.raises(ValueError, match="at least one"):
        extract(probe(), stimuli.select([]), ["first"], path)
    with pytest.raises(ValueError, match="at least 1, got 0, 32"):
        extract(probe(), stimuli, ["first"], path, workers=0)
    with pytest.raises(OutputError, match=r"absent/a\.h5: cannot be written"):
        extract(probe(), stimuli, ["first"], tmp_path / "absent" / "a.h5")


def test_a_full_disk_is_an_output_error(stimuli, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=r"a\.h5: cannot be written \(No space left on device\); free space"):
        extract(probe(), stimuli, ["first"], tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_few_batches_are_in_flight(tmp_path, monkeypatch, workers):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = [f"{i}" for i in range(60)]
    table = pd.DataFrame({"stimulus_id": names, "filename": "a.png", "modality": "image", "sha256": names})
    lock, now, most = threading.Lock(), 0, 0
    run, write = module._Job.__call__, module._write

    def counted_run(*arguments: object) -> module.Batch:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        return run(*arguments)

    def counted_write(*arguments: object) -> None:
        nonlocal now
        time.sleep(0.002)
        write(*arguments)
        with lock:
            now -= 1

    monkeypatch.setattr(module._Job, "__call__", counted_run)
    monkeypatch.setattr(module, "_write", counted_write)
    extract(probe(), Stimuli(table, tmp_path), ["first"], tmp_path / "a.h5", workers=workers, batch_size=1)
    assert now == 0
    assert most <= (workers + 2 if workers > 1 else 2)


def test_estimated_bytes_are_those_stored(stimuli, tmp_path):
    network = zoo.build("demo")
    extract(network, stimuli, network.canonical(), tmp_path / "a.h5")
    stored = sum(values.nbytes for name, values in read(tmp_path / "a.h5").items() if name in network.canonical())
    assert estimate_bytes(network, network.canonical(), len(stimuli)) == stored


def test_device(monkeypatch):
    assert devices.device("cpu") == torch.device("cpu")
    assert devices.device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cpu:1", "cuda:x", ""):
        with pytest.raises(ConfigError, match="is not known"):
            devices.device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.device("auto") == torch.device("cuda")
    assert devices.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="not on this machine"):
        devices.device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not on this machine; choose auto or cpu"):
        devices.device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_agrees_with_the_cpu(stimuli, tmp_path):
    network = zoo.build("resnet18", weights="none")
    layers = network.canonical()
    for name, device, workers in (("c", "cpu", 1), ("g1", "cuda", 1), ("g2", "cuda", 2)):
        extract(network, stimuli, layers, tmp_path / f"{name}.h5", device=device, workers=workers, batch_size=4)
    cpu, one, two = (read(tmp_path / f"{name}.h5") for name in ("c", "g1", "g2"))
    for layer in layers:
        np.testing.assert_array_equal(one[layer], two[layer])
        np.testing.assert_allclose(one[layer], cpu[layer], atol=1e-4 * np.abs(cpu[layer]).max())
    assert next(network.module.parameters()).device.type == "cpu"


PEAK = """
import resource, sys
from pathlib import Path
import pandas as pd
from bidsdnn.networks import extract, zoo
from bidsdnn.stimuli import Stimuli
folder, n = Path(sys.argv[1]), int(sys.argv[2])
rows = {"stimulus_id": [str(i) for i in range(n)], "filename": "a.png", "modality": "image"}
rows["sha256"] = rows["stimulus_id"]
network = zoo.build("squeezenet1_1", weights="none")
extract.extract(network, Stimuli(pd.DataFrame(rows), folder), ["features.1"], folder / "a.h5", batch_size=4, workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    Image.new("RGB", (300, 300), "red").save(tmp_path / "a.png")
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    few, many = (int(subprocess.check_output([*command, str(n)], text=True)) for n in (32, 320))
    more = 288 * 4 * 64 * 111 * 111
    assert many - few < 0.15 * more


def test_stimuli_without_hashes_have_their_contents_all_the_same(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (8, 8), (number // 2 * 90, 0, 0)).save(tmp_path / f"{name}.png")
    bare = Stimuli.from_folder(tmp_path)
    assert (bare.table["sha256"] == "").all()
    assert contents(bare) == contents(bare.with_hashes()) and len(set(contents(bare))) == 2
