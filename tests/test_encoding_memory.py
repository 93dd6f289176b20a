"""Encoding some voxels at a time, with predictions in a file, and what it says it needs."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from bidsdnn.analyses import encoding
from bidsdnn.cli import main
from bidsdnn.encoding import memory
from bidsdnn.errors import ConfigError
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns


@pytest.mark.parametrize("encoder", ["ridge", "ols", "pls"])
def test_files_and_blocks_change_no_score(tmp_path, monkeypatch, encoder):
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"stimulus_id": [f"s{i:02d}" for i in range(30)]})
    layer = rng.normal(size=(30, 6))
    brain = (layer @ rng.normal(size=(6, 50)) + rng.normal(size=(30, 50))).astype(np.float32)
    tables = [Patterns(items, (Group("l", layer, "net"),)), Patterns(items, (Group("brain", brain),))]
    options = {"regions": {"a": {"all": np.ones(50, dtype=bool)}}, "permutations": 9, "seed": 0, "map": serial}
    asked = {**options, "cv": "kfold:5", "inner_splits": 3, "bootstrap": 20, "encoder": encoder}
    whole = encoding(*tables, **asked)
    # Eleven of the 50 voxels at a time, none of the predictions in memory.
    monkeypatch.setattr(memory, "IN_MEMORY", 4 * 30 * 11)
    blocks = encoding(*tables, **asked, scratch=tmp_path)
    assert memory.width(30) == 11
    for name, expected in whole.tables.items():
        pd.testing.assert_frame_equal(blocks.tables[name], expected, rtol=1e-5)
    for one, other in zip(blocks.maps, whole.maps, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


def test_room_is_a_file_that_goes_away(tmp_path, monkeypatch):
    assert not isinstance(memory.room(tmp_path, (3, 4)), np.memmap)
    monkeypatch.setattr(memory, "IN_MEMORY", 8)
    table = memory.room(tmp_path, (3, 4))
    assert isinstance(table, np.memmap) and np.isnan(table).all() and table.dtype == np.float32
    assert list(tmp_path.iterdir()) == []
    table[:, 1] = 5
    np.testing.assert_array_equal(np.nansum(table, axis=0), [0, 15, 0, 0])
    assert not isinstance(memory.room(None, (3, 4)), np.memmap)


def test_scores_by_voxel_are_those_of_all_at_once(monkeypatch):
    monkeypatch.setattr(memory, "IN_MEMORY", 4 * 5 * 3)
    a, b = np.random.default_rng(0).normal(size=(2, 5, 10))
    widths = []

    def score(x, y, scale):
        widths.append(x.shape[1])
        return np.array([(x * y).sum(axis=0), x.max(axis=0)]) if scale is None else x

    np.testing.assert_allclose(memory.by_voxel(score, a, b, None), [(a * b).sum(axis=0), a.max(axis=0)])
    assert widths == [3, 3, 3, 1]


def test_what_does_not_fit_is_refused_with_its_bytes():
    needed = memory.estimate_bytes(10_000, 200_000)
    # Of the issue; the responses alone are 8 GB.
    assert 6 * 8 * 10_000**2 < needed < 16e9 < memory.estimate_bytes(10_000, 200_000, encoder="pls")
    with pytest.raises(ConfigError, match=f"--mem-mb 4000: .* 10000 stimuli x 200000 voxels .* {needed} bytes"):
        memory.jobs_that_fit(10_000, 200_000, mem_mb=4000)
    with pytest.raises(ConfigError, match=r"with pls needs .* bytes; give .*, --encoder ridge, which needs less"):
        memory.jobs_that_fit(10_000, 200_000, mem_mb=4000, encoder="pls")
    assert memory.jobs_that_fit(10_000, 200_000, mem_mb=np.ceil(needed / 1e6), jobs=8) == 1
    assert memory.jobs_that_fit(10_000, 200_000, mem_mb=None, jobs=8) == 8
    two = memory.estimate_bytes(10_000, 200_000, jobs=2)
    assert 1.5 * needed < two < 2.5 * needed
    assert memory.jobs_that_fit(10_000, 200_000, mem_mb=two / 1e6 + 1, jobs=8) == 2


def test_a_table_in_a_file_lets_go_of_what_it_read(tmp_path):
    made = memory.Table.of(tmp_path / "t.bin", (6, 5), mode="w+")
    made[:, 1:3] = np.arange(12).reshape(6, 2)
    made[np.array([0, 2]), 4] = 7
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again, memory.Table) and again.flags.f_contiguous
    np.testing.assert_array_equal(again[:, 2], [1, 3, 5, 7, 9, 11])
    np.testing.assert_array_equal(again[:, np.array([4, 0])], [[7, 0], [0, 0], [7, 0], [0, 0], [0, 0], [0, 0]])
    # What is read is a copy, and so is nothing that keeps the file's pages.
    assert type(again[:, 1:3]) is np.ndarray and again[:, 1:3].base is None


def test_many_responses_go_into_a_file(tmp_path, monkeypatch):
    items = pd.DataFrame({"stimulus_id": ["a", "b", "c"]})
    values = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    patterns = Patterns(items, (Group("brain", values),))
    assert memory.in_file(patterns, tmp_path) is patterns
    monkeypatch.setattr(memory, "IN_MEMORY", 8)
    assert memory.in_file(patterns, None) is patterns
    stored = memory.in_file(patterns.take(np.array([2, 0, 1])), tmp_path)
    assert isinstance(stored.values, memory.Table)
    np.testing.assert_array_equal(stored.values[:, :], values[[2, 0, 1]])


def test_a_participant_whose_responses_are_many(finished, tmp_path, monkeypatch, undrawn):
    opened = []
    monkeypatch.setattr(memory, "IN_MEMORY", 24)
    monkeypatch.setattr(memory, "width", lambda n_items: 40)
    made = memory.Table.of
    monkeypatch.setattr(memory.Table, "of", lambda *given, **more: opened.append(given) or made(*given, **more))
    own = ["--participant-label", "01", "--work-dir", str(tmp_path / "work")]
    assert main([str(finished.bids), str(tmp_path / "out"), "participant", *own, *finished.options]) == 0
    # Once for responses, which nothing copies again, and once for each layer's predictions.
    assert len(opened) >= 2 and not list((tmp_path / "work").iterdir())
    for name in ("encoding", "rsa", "bestlayer"):
        (path,) = (finished.out / "sub-01").rglob(f"*_desc-{name}_*.tsv")
        (again,) = (tmp_path / "out" / "sub-01").rglob(path.name)
        pd.testing.assert_frame_equal(pd.read_csv(again, sep="\t"), pd.read_csv(path, sep="\t"), rtol=1e-4, atol=1e-6)
