"""Weights: files of every kind, downloads over a local server, hashes."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import zipfile
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from bidsdnn.errors import ConfigError, DataError, MissingInputError
from bidsdnn.networks import weights


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "parallel"])
def test_state_dicts_are_unwrapped_and_loaded(tmp_path, wrap):
    module = small()
    state = (nn.DataParallel(module) if wrap == "parallel" else module).state_dict()
    path = saved(tmp_path / "w.pth", {wrap: state, "epoch": 3} if wrap in ("state_dict", "model") else state)
    read = weights.read_state(path)
    assert list(read) == list(module.state_dict())
    assert read._metadata["1"] == {"version": 2}
    fresh = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    weights.load_state(fresh, read, path)
    assert weights.state_sha256(fresh) == weights.state_sha256(module)


def test_keys_that_do_not_fit_are_named(tmp_path):
    state = OrderedDict({"0.weight": torch.zeros(2, 3), "extra.bias": torch.zeros(1), "extra.weight": torch.zeros(1)})
    with pytest.raises(DataError, match=r"w\.pth: .*\(5 missing, first '0\.bias'; 2 unexpected, first 'extra\.bias'\)"):
        weights.load_state(small(), state, tmp_path / "w.pth")


def test_shapes_that_do_not_fit_are_named(tmp_path):
    state = small().state_dict()
    state["0.weight"] = torch.zeros(5, 3)
    with pytest.raises(DataError, match=r"do not fit the network .*0\.weight"):
        weights.load_state(small(), state, tmp_path / "w.pth")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bomb",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"a": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"evil\.pth: refused, because reading it would run code \(posix\.system\)"):
        weights.read_state(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"evil\.pth: "):
        weights.read_state(path)
    assert not (tmp_path / "bomb").exists()


def test_a_whole_module_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"would run code .*save `model\.state_dict\(\)`"):
        weights.read_state(saved(tmp_path / "m.pth", small()))


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 1}, {}, {"state_dict": {"a": 1}}])
def test_files_without_a_state_dict(tmp_path, content):
    with pytest.raises(DataError, match="expected a state dict"):
        weights.read_state(saved(tmp_path / "w.pth", content))


def test_damaged_files_are_data_errors(tmp_path):
    path = saved(tmp_path / "w.pth", small().state_dict())
    content = path.read_bytes()
    for damaged in (b"", b"not weights", content[: len(content) // 2], content[:100]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"w\.pth: not a readable weights file"):
            weights.read_state(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"w\.pth: not a readable weights file"):
        weights.read_state(path)
    with pytest.raises(MissingInputError, match=r"absent\.pth: weights not found"):
        weights.read_state(tmp_path / "absent.pth")


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="pip install safetensors"):
        weights.read_state(tmp_path / "w.safetensors")


def test_safetensors(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    path, state = tmp_path / "w.safetensors", small().state_dict()
    package.save_file(dict(state), path)
    weights.load_state(small(), weights.read_state(path), path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="not a readable"):
        weights.read_state(path)


def test_state_hash_sees_values_names_shapes_and_types():
    def hashed(**buffers: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in buffers.items():
            module.register_buffer(name, tensor)
        return weights.state_sha256(module)

    zero = torch.zeros(2, 3)
    different = [
        hashed(a=zero),
        hashed(b=zero),
        hashed(a=zero.T),
        hashed(a=zero.double()),
        hashed(a=zero.bfloat16()),
        hashed(a=zero + 1),
        hashed(a=torch.tensor(0.0)),
    ]
    assert len(set(different)) == len(different)
    assert hashed(a=zero, b=zero + 1) == hashed(b=zero + 1, a=zero.clone())


@pytest.fixture
def server(tmp_path):
    """A folder and the address that serves it."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def publish(folder: Path, *, honest: bool = True) -> str:
    content = saved(folder / "new", small().state_dict()).read_bytes()
    digest = hashlib.sha256(content if honest else b"other").hexdigest()
    (folder / "new").rename(folder / f"small-{digest[:8]}.pth")
    return f"small-{digest[:8]}.pth"


def test_fetch_downloads_once(server, tmp_path):
    folder, address = server
    name = publish(folder)
    path = weights.fetch(f"{address}/{name}", tmp_path / "cache", progress=False)
    assert path == tmp_path / "cache" / name
    assert path.read_bytes() == (folder / name).read_bytes()
    (folder / name).unlink()
    assert weights.fetch(f"{address}/{name}", tmp_path / "cache") == path
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [name]


def test_fetch_refuses_other_bytes_than_promised(server, tmp_path):
    folder, address = server
    name = publish(folder, honest=False)
    with pytest.raises(DataError, match="download is damaged"):
        weights.fetch(f"{address}/{name}", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_without_the_file_or_the_network(server, tmp_path):
    _, address = server
    for url in (f"{address}/gone-12345678.pth", "http://127.0.0.1:9/gone-12345678.pth"):
        with pytest.raises(MissingInputError) as caught:
            weights.fetch(url, tmp_path / "cache", name="resnet18")
        message = str(caught.value)
        assert "\n" not in message
        for part in ("gone-12345678.pth of resnet18", str(tmp_path / "cache"), "bidsdnn-fetch resnet18 --dir DIR"):
            assert part in message
        assert "TORCH_HOME=DIR" in message


def test_check_hash(tmp_path):
    weights.check_hash(Path("a-0123abcd.pth"), "0123abcd" + "0" * 56)
    weights.check_hash(Path("unhashed.pth"), "f" * 64)
    with pytest.raises(DataError, match=r"a-0123abcd\.pth: .*delete it"):
        weights.check_hash(Path("a-0123abcd.pth"), "f" * 64)


def test_checkpoint_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weights.checkpoint_folder() == weights.checkpoint_folder(tmp_path) == tmp_path / "hub" / "checkpoints"
