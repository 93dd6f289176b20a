"""The arguments of ``bidsdnn``: what can be said on the command line, and nothing about what it does.

Nothing heavy is imported, so that ``--help`` is there at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from bidsdnn import __version__

LEVELS = ("dnn", "participant", "group")
LISTS = ("networks", "layers", "features", "analyses", "responses", "dissimilarities", "similarities", "models")


def _names(*flags: str) -> list[str]:
    """Each long flag with dashes and with underscores, as BIDS-Apps have been called both ways."""
    spelt = []
    for flag in flags:
        spelt.append(flag)
        if flag.startswith("--") and "-" in flag[2:]:
            spelt.append("--" + flag[2:].replace("-", "_"))
    return spelt


def _without(prefix: str) -> Callable[[str], str]:
    return lambda text: text.removeprefix(prefix)


def parser() -> argparse.ArgumentParser:
    """Build the command line of ``bidsdnn``; the documentation's page is generated from it."""
    p = argparse.ArgumentParser(
        prog="bidsdnn",
        description="How well do deep networks explain brains? Reads a BIDS dataset, its stimuli and its fMRIPrep "
        "derivatives; writes activations, responses, encoding models, RSA and reports.",
        epilog="Example: bidsdnn /data /data/derivatives/bidsdnn participant --network resnet18",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    p.add_argument("bids_dir", nargs="?", help="BIDS dataset, with stimuli/ and derivatives/")
    p.add_argument("out_dir", nargs="?", help="where results go, best BIDS_DIR/derivatives/bidsdnn")
    p.add_argument(
        "analysis_level", nargs="?", metavar="{dnn,participant,group}",
        help="dnn: activations, needs no brain; participant: one by one; group: over participants",
    )  # fmt: skip
    p.add_argument("--version", action="version", version=f"bidsdnn v{__version__}")
    p.add_argument("-v", "--verbose", action="count", help="say more; twice: everything")
    _add_data(p.add_argument_group("which data"))
    _add_networks(p.add_argument_group("stimuli and networks"))
    _add_responses(p.add_argument_group("responses of the brain"))
    _add_analyses(p.add_argument_group("analyses"))
    _add_machine(p.add_argument_group("which machine"))
    return p


def _add_data(g: Any) -> None:
    g.add_argument(
        *_names("--participant-label"), nargs="+", type=_without("sub-"), help="participants, with or without sub-"
    )
    g.add_argument(*_names("--session-label", "--session-id"), nargs="+", type=_without("ses-"), help="sessions")
    g.add_argument("-t", *_names("--task-id", "--task-label"), nargs="+", type=_without("task-"), help="tasks")
    g.add_argument(*_names("--run-label", "--run-id"), nargs="+", type=_run_number, help="runs, as numbers")
    g.add_argument(
        *_names("--bids-filter-file"), metavar="FILE", help="JSON of PyBIDS filters for bold, events, mask, confounds"
    )
    g.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        metavar="NAME=PATH",
        help="preprocessed data; default: all in BIDS_DIR/derivatives",
    )
    g.add_argument(
        "--space", metavar="SPACE[:res-X][:den-X]", help="space of the bold files; `native` for those without one"
    )
    g.add_argument(
        "--mesh", nargs=2, metavar=("L", "R"),
        help="surf.gii of both hemispheres, for surfaces and CIFTI; default: the derivative's, or fsaverage5",
    )  # fmt: skip
    g.add_argument(
        "--atlas", nargs="+", metavar="DSEG", help="segmentations (dseg, label.gii, dlabel.nii, masks) whose regions "
        "are scored; of label.gii the left file; default: the whole brain"
    )  # fmt: skip
    g.add_argument(
        *_names("--raw-bold"), action="store_true", help="analyse raw bold instead of preprocessed (with a warning)"
    )
    g.add_argument(*_names("--bids-database-dir"), metavar="PATH", help="keep the PyBIDS index here and use it again")
    g.add_argument(
        *_names("--skip-bids-validation", "--skip-bids-validator"), action="store_true",
        help="do not check that BIDS_DIR has a dataset_description.json",
    )  # fmt: skip


def _add_networks(g: Any) -> None:
    g.add_argument(
        *_names("--stimuli-dir"),
        metavar="PATH",
        help="a folder, or DNNBrain's NAME.stim.csv; default: BIDS_DIR/stimuli",
    )
    g.add_argument(*_names("--stimulus-pictures"), action="store_true", help="small pictures of stimuli in the reports")
    g.add_argument(
        *_names("--interactive-maps"), action="store_true", help="maps that can be turned, beside the reports"
    )
    g.add_argument(*_names("--stimulus-column"), metavar="NAME", help="column of events.tsv that names the stimuli")
    g.add_argument(
        *_names("--stimulus-id-map"), metavar="TSV", help="columns id and filename, for ids that are no file names"
    )
    g.add_argument(
        *_names("--event-filter"), metavar="EXPR", help="events that are scored, as \"trial_type == 'object'\""
    )
    g.add_argument(
        "--network", nargs="+", metavar="[ALIAS=]NAME[@WEIGHTS]",
        help="networks by name (`--list networks`), timm:NAME, hf:NAME, open_clip:NAME, a file .onnx or .keras, or "
        "file.py:build; `none` for no network (default: alexnet)",
    )  # fmt: skip
    g.add_argument(
        "--weights", metavar="DEFAULT|none|shuffled[:WEIGHTS]|NAME|PATH",
        help="for networks without @WEIGHTS (default: DEFAULT)",
    )  # fmt: skip
    g.add_argument(
        "--layer", nargs="+", metavar="[NETWORK:]GLOB",
        help="layers; @0.5: at half the depth; relu#2: a module's second call (default: at most 12 canonical ones)",
    )  # fmt: skip
    g.add_argument(
        "--ablate", nargs="+", metavar="[NETWORK:]LAYER[:CHANNEL,...]",
        help="cut out layers (patterns as --layer) or their channels: without NETWORK, a cut copy is put beside each "
        "network; with it, that network itself is cut",
    )  # fmt: skip
    g.add_argument(
        *_names("--ablate-to"), choices=("zero", "mean", "shuffled"), help="what cut units give (default: zero)"
    )
    g.add_argument(
        "--unit", nargs="+", metavar="LAYER:CHANNEL[,ROW,COL]",
        help="units that are looked into, from 0; brain:REGION[:VOXEL] is a region or voxel of the participant",
    )  # fmt: skip
    g.add_argument(
        "--features", nargs="+", metavar="NAME[=PATH]",
        help="used as a network's layer is: computed from the stimuli, as `luminance` (`--list features`); or a table "
        "or array with a row a stimulus, DNNBrain's .act.h5, samples of each stimulus, or a BIDS dataset's _stim.tsv",
    )  # fmt: skip
    g.add_argument("--tokens", choices=("all", "cls", "mean"), help="of transformers' layers (default: all)")
    g.add_argument(
        "--pooling", metavar="HOW",
        help="over positions: max, mean, median, l1, l2, grid:N, histogram:N, psd:N (default: none)",
    )  # fmt: skip
    g.add_argument(
        "--projection", metavar="N", type=_dimensions,
        help="random dimensions of wider layers; auto: as many as keep distances to a tenth",
    )  # fmt: skip
    g.add_argument(
        "--pca", metavar="N", type=_components,
        help="principal components of each layer over all stimuli, test stimuli too, as DNNBrain's paper did; below 1: "
        "as many as explain that share of the variance",
    )  # fmt: skip
    g.add_argument(*_names("--activation-dtype"), choices=("float32", "float16"), help="as stored (default: float32)")
    g.add_argument("--mono", action="store_true", help="average the channels of sounds")
    g.add_argument(*_names("--skip-unreadable"), action="store_true", help="leave out stimuli that cannot be read")
    g.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="where networks run (default: auto)")
    g.add_argument(
        "--list", choices=LISTS, dest="list_what", metavar="WHAT", help=f"print one of {', '.join(LISTS)}, and stop"
    )


def _add_responses(g: Any) -> None:
    g.add_argument("--response", metavar="NAME", help="estimator, as in `--list responses` (default: lss)")
    g.add_argument("--hrf", metavar="NAME", help='spm, glover, "spm + derivative", ... (default: spm)')
    g.add_argument("--noise", choices=("ols", "ar1"), help="model of the noise in time (default: ols)")
    g.add_argument(
        "--confounds", nargs="+", metavar="NAME",
        help="motion[-6|-12|-24], compcor, wm_csf, global_signal, ica_aroma, scrub, none; or columns, as `trans_*` "
        "(default: motion)",
    )  # fmt: skip
    g.add_argument(
        *_names("--fd-threshold"), type=float, metavar="MM", help="leave out volumes that moved more than this"
    )
    g.add_argument(
        *_names("--dummy-scans"), type=int, metavar="N",
        help="volumes left out at the start (default: those that fMRIPrep calls non-steady)",
    )  # fmt: skip
    g.add_argument(
        *_names("--high-pass"), type=float, metavar="S",
        help="slowest period kept, where the confounds have no cosines (default: 128)",
    )  # fmt: skip
    g.add_argument("--smoothing", type=float, metavar="FWHM", help="in mm, in the volume or along the surface")
    g.add_argument(
        "--standardize", choices=("none", "psc", "zscore"),
        help="series in percent signal change, or z-scored by run (default: none)",
    )  # fmt: skip
    g.add_argument(
        *_names("--slice-time-ref"), type=float, metavar="FRACTION",
        help="of the TR, at which volumes show, where the sidecar has no StartTime",
    )  # fmt: skip


def _add_analyses(g: Any) -> None:
    g.add_argument("--analysis", nargs="+", metavar="NAME", help="default: encoding rsa")
    g.add_argument(
        "--preset", metavar="NAME",
        help="dnnbrain2020: layers, components, models and measures of DNNBrain's paper; other options win over it",
    )  # fmt: skip
    g.add_argument(
        "--encoder", metavar="NAME",
        help="model of encoding, as in `--list models`, or any estimator as package.module.object (default: ridge)",
    )  # fmt: skip
    g.add_argument(
        "--cv", metavar="HOW",
        help="what is held out: kfold:N, leave-one-out (stimuli), leave-one-run-out, leave-K-runs-out, "
        "leave-one-session-out, or column:NAME[=TSV] with values train and test (default: kfold:10)",
    )  # fmt: skip
    g.add_argument(
        *_names("--save-predictions"), action="store_true", help="keep encoding's held-out predictions of every voxel"
    )
    g.add_argument(
        *_names("--save-weights"), action="store_true", help="keep encoding's weights, fitted to all stimuli"
    )
    g.add_argument(
        "--target", nargs="+", metavar="NAME[=TSV]",
        help="what decoding tells: a column of the events, of stimuli.tsv, or of a table",
    )  # fmt: skip
    g.add_argument(
        "--decoder", metavar="NAME",
        help="logistic, svm, lda, ridge or package.module:object (default: logistic for classes, ridge for numbers)",
    )  # fmt: skip
    g.add_argument("--rdm", nargs="+", metavar="NAME=PATH", help="measured RDMs, a file a region, in place of brains")
    g.add_argument(
        *_names("--rdm-column"), nargs="+", metavar="NAME[=TSV]",
        help="behaviour or categories as models: a column of the events, of stimuli.tsv, or of a table",
    )  # fmt: skip
    g.add_argument(*_names("--rdm-metric"), metavar="NAME", help="distance between stimuli (default: correlation)")
    g.add_argument(
        *_names("--rdm-comparison"), nargs="+", metavar="NAME", help="between RDMs (default: spearman pearson)"
    )
    g.add_argument(
        "--radius", type=float, metavar="MM", help="of a searchlight, along the cortex on surfaces (default: 10)"
    )
    g.add_argument(
        "--iterate", choices=("channel", "position"), help="each channel or position of a layer by itself too"
    )
    g.add_argument(
        *_names("--group-model"), nargs="+", choices=("averaged", "stacked", "cross-participant"),
        help="analyses also fitted at the group level: to the mean of participants' responses, to their voxels side by "
        "side, to the others to predict each (default: none)",
    )  # fmt: skip
    g.add_argument("--permutations", type=int, metavar="N", help="for every p (default: 1000)")
    g.add_argument(
        "--tfce", action="store_true",
        help="threshold-free cluster enhancement of the group's maps too; how long it takes is said first",
    )  # fmt: skip
    g.add_argument(
        "--covariate",
        nargs="+",
        metavar="NAME",
        help="columns of participants.tsv whose effect is tested over participants",
    )
    g.add_argument(
        *_names("--group-column"), metavar="NAME", help="column of participants.tsv with two groups, which are compared"
    )
    g.add_argument(*_names("--random-seed"), type=int, metavar="N", help="default: 0")
    g.add_argument(
        *_names("--config-file"), metavar="TOML", help="options from a file, as an earlier run's logs/*/bidsdnn.toml"
    )


def _add_machine(g: Any) -> None:
    g.add_argument(
        *_names("--nprocs", "--nthreads", "--n-cpus"), type=int, metavar="N", help="processors (default: all)"
    )
    g.add_argument(
        *_names("--omp-nthreads"),
        type=int,
        metavar="N",
        help="processors that one job counts as (default: 1); its numbers come from one thread, whatever this says",
    )
    g.add_argument(
        *_names("--mem-mb", "--mem"),
        type=_megabytes,
        metavar="MB",
        help="memory for all jobs; K, M, G, T are understood",
    )
    g.add_argument(
        "-w", *_names("--work-dir"), metavar="PATH", help="for arrays shared between jobs (default: the system's)"
    )
    g.add_argument(*_names("--stop-on-first-crash"), action="store_true", help="do not go on with other participants")
    g.add_argument(*_names("--reports-only"), action="store_true", help="write the reports anew from what is there")
    g.add_argument(*_names("--dry-run"), action="store_true", help="say what would be done, and write nothing")
    g.add_argument("--notrack", action="store_true", help="accepted; bidsdnn sends nothing anywhere")


def _run_number(text: str) -> int:
    return int(text.removeprefix("run-"))


def _dimensions(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _components(text: str) -> float:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 100, or a share as 0.9") from error


def _megabytes(text: str) -> int:
    """Read ``8000``, ``8G`` or ``8GB`` as megabytes."""
    number = text.upper().removesuffix("B")
    scale = {"K": 1e-3, "M": 1.0, "G": 1e3, "T": 1e6}.get(number[-1:])
    try:
        return int(float(number[:-1] if scale else number) * (scale or 1.0))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; write 8000 or 8G") from error
