"""The commands beside ``bidsdnn``: write the demo dataset, download weights, convert files."""

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
    p.add_argument(
        "--alike", type=float, default=0.0, metavar="SHARE",
        help="of a voxel's responses, of 0 to 1, that all participants have in common (default: 0)",
    )  # fmt: skip
    a = p.parse_args(argv)

    def write() -> int:
        single_threaded()
        from bidsdnn.demo import write_demo

        path = write_demo(
            a.folder, participants=a.participants, stimuli=a.stimuli, spaces=tuple(a.spaces), seed=a.seed,
            alike=a.alike, progress=True,
        )  # fmt: skip
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


def convert(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsdnn-convert``: write this program's activations and RDMs as DNNBrain's files.

    Parameters
    ----------
    argv : sequence of str, optional

    Returns
    -------
    int
        Exit status.
    """
    p = argparse.ArgumentParser(
        prog="bidsdnn-convert", description="Convert between this program's files and DNNBrain's."
    )
    p.add_argument("source", metavar="IN", type=Path, help="..._activations.h5, ..._relmat.h5, or NAME.stim.csv")
    p.add_argument("target", metavar="OUT", type=Path, help="NAME.act.h5, NAME.rdm.h5, or NAME_events.tsv")
    p.add_argument(
        "--stimuli-dir", type=Path, default=Path("stimuli"),
        help="what the NAME.stim.csv beside OUT calls the stimuli's folder; default: stimuli",
    )  # fmt: skip
    a = p.parse_args(argv)

    def write() -> int:
        from bidsdnn.bids.dnnbrain.convert import convert

        for path in convert(a.source, a.target, stimuli_dir=a.stimuli_dir):
            print(path)
        return 0

    return guarded(write)
