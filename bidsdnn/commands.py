"""The commands beside ``bidsdnn``: write the demo dataset, download weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bidsdnn.cli import guarded, single_threaded


def demo(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsdnn-demo``: write a small BIDS dataset whose truth is known.

    Parameters
    ----------
    argv : sequence of str, optional

    Returns
    -------
    int
        Exit status.
    """
    p = argparse.ArgumentParser(prog="bidsdnn-demo", description="Write a BIDS dataset with planted truth.")
    p.add_argument("folder", metavar="DIR", type=Path, help="where; must not exist, or be empty")
    p.add_argument("--participants", type=int, default=3, help="default: 3")
    p.add_argument("--stimuli", type=int, default=48, help="default: 48")
    p.add_argument("--spaces", nargs="+", default=["volume"], help="of volume, surface, cifti; default: volume")
    p.add_argument("--seed", type=int, default=0, help="default: 0")
    a = p.parse_args(argv)

    def write() -> int:
        single_threaded()
        from bidsdnn.demo import write_demo

        path = write_demo(
            a.folder, participants=a.participants, stimuli=a.stimuli, spaces=tuple(a.spaces), seed=a.seed, progress=True
        )
        print(path)
        return 0

    return guarded(write)


def fetch(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsdnn-fetch``: download weights for machines without internet.

    Parameters
    ----------
    argv : sequence of str, optional

    Returns
    -------
    int
        Exit status.
    """
    p = argparse.ArgumentParser(prog="bidsdnn-fetch", description="Download weights for machines without internet.")
    p.add_argument("network", nargs="+", metavar="NETWORK[@WEIGHTS]", help="names, as in `bidsdnn --list networks`")
    p.add_argument("--dir", type=Path, help="default: torch's cache; else set TORCH_HOME=DIR where bidsdnn runs")
    a = p.parse_args(argv)

    def download() -> int:
        from bidsdnn.networks.zoo import fetch_weights

        for path in fetch_weights(a.network, folder=a.dir, progress=True):
            print(path)
        if a.dir is not None:
            print(f"export TORCH_HOME={a.dir.absolute()}")
        return 0

    return guarded(download)
