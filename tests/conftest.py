"""One tiny demo dataset, and one whole run of all three levels on it, for all tests that look at a finished output."""

from __future__ import annotations

import os

# Before numpy and torch are imported, as the command line does it: results must not depend on kernel threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import gc
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ATLAS = "derivatives/planted/tpl-MNI152NLin2009cAsym/anat/tpl-MNI152NLin2009cAsym_atlas-planted_dseg.nii.gz"
TINY = {"participants": 2, "stimuli": 24, "runs": 3, "voxel_size": 8.0, "seed": 0, "noise": 0.3}


@dataclass(frozen=True)
class Finished:
    """A dataset, the output of a run on it, and the options of that run."""

    bids: Path
    out: Path
    options: tuple[str, ...]


# Files that take longest, by CPU time: started first, so that no worker waits for another's last one.
LONGEST = (
    "test_surfaces", "test_pipeline", "test_bad_input", "test_searchlights", "test_extract", "test_page", "test_docs",
    "test_groupmodels", "test_optimal", "test_brainlayer", "test_cuts",
    "test_continuous", "test_dataset", "test_movies", "test_rsa_pipeline", "test_own_measures", "test_precomputed",
    "test_demo", "test_zoo", "test_cornet", "test_surface_files", "test_activations", "test_published",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; with ``--no-loadscope-reorder``, workers take files in this order."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Stop looking for garbage among what imports have left: it stays, and is looked through at each collection."""
    gc.collect()
    gc.freeze()


@contextmanager
def without_pictures() -> Iterator[None]:
    """Write reports in full, but for their drawings: those take most of the time of a small run.

    For runs of which nobody looks at a drawing; each kind of run has one elsewhere in the tests that draws all.
    """
    import bidsdnn.report
    from bidsdnn.report.drawing import Panel, _inline

    def empty(name, size, paint, *, alt, label=""):
        svg = '<svg viewBox="0 0 1 1"></svg>'
        return Panel(f"{name}.svg", svg.encode(), _inline(svg, name, size[0], alt), alt, label)

    with pytest.MonkeyPatch.context() as patch:
        for info in pkgutil.iter_modules(bidsdnn.report.__path__):
            module = import_module(f"bidsdnn.report.{info.name}")
            if hasattr(module, "draw"):
                patch.setattr(module, "draw", empty)
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Run a test `without_pictures`."""
    with without_pictures():
        yield


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory) -> Path:
    """A small demo dataset; tests that change it copy it first."""
    from bidsdnn.demo import write_demo

    return write_demo(tmp_path_factory.mktemp("demo") / "bids", **TINY)


@pytest.fixture(scope="session")
def finished(demo_dataset, tmp_path_factory) -> Finished:
    """Output of dnn, participant and group on the demo dataset."""
    from bidsdnn.cli import main

    out = tmp_path_factory.mktemp("out") / "bidsdnn"
    options = ("--network", "demo", "--atlas", str(demo_dataset / ATLAS), "--permutations", "200", "--nprocs", "1")
    for level in ("dnn", "participant", "group"):
        assert main([str(demo_dataset), str(out), level, *options]) == 0
    return Finished(demo_dataset, out, options)
