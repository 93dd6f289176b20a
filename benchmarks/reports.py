"""What the pages of an output folder take: seconds of processor time, and their size.

Usage: OMP_NUM_THREADS=1 python benchmarks/reports.py demo/derivatives/bidsdnn
The folder is copied; each page is written from what is on disk, as --reports-only does, after one that loads packages.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bidsdnn import reports
from bidsdnn.bids.derivatives import Derivatives


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(out, Path(folder) / out.name, symlinks=True))
        derivatives = Derivatives(root, {"raw": out.resolve().parents[1]})
        labels = [path.name.removeprefix("sub-") for path in sorted(root.glob("sub-*/"))]
        reports.participant_page(derivatives, labels[0])
        pages: dict[str, Callable[[], Path]] = {
            **{f"sub-{label}": lambda label=label: reports.participant_page(derivatives, label) for label in labels},
            "group": lambda: reports.group_page(derivatives), "index": lambda: reports.index_page(derivatives),
        }  # fmt: skip
        for name, write in pages.items():
            started, wall = time.process_time(), time.perf_counter()
            size = write().stat().st_size / 1e6
            print(f"{name}: {time.process_time() - started:.1f} s of processor time, "
                  f"{time.perf_counter() - wall:.1f} s, {size:.2f} MB")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
