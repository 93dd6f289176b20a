"""The demo on disk: a raw BIDS dataset, an fMRIPrep-like derivative, an atlas, and the truth that was planted."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bidsdnn.demo import files
from bidsdnn.demo.bold import (
    MEAN_RESPONSE,
    PICTURE_RESPONSE,
    Hrf,
    Motion,
    count_volumes,
    evoked,
    plan_trials,
    read_out,
    simulate_run,
)
from bidsdnn.demo.brain import REGIONS, Grid, Head, Template, anatomy_size, draw_regions, run_mask
from bidsdnn.demo.confounds import tabulate_confounds
from bidsdnn.demo.cortex import lay_out
from bidsdnn.demo.pictures import draw_picture, plan_pictures, write_pictures
from bidsdnn.demo.surface_files import Sheets
from bidsdnn.errors import ConfigError, OutputError
from bidsdnn.networks.recorder import Recorder
from bidsdnn.networks.zoo import build

SPACES = ("volume", "surface", "cifti")
LAYERS = {"early": "conv1", "middle": "conv3", "late": "conv5", "none": None}


def write_demo(
    folder: Path,
    *,
    participants: int = 3,
    stimuli: int = 48,
    runs: int = 4,
    spaces: Sequence[str] = SPACES[:1],
    seed: int = 0,
    voxel_size: float = 6.0,
    noise: float = 1.0,
    alike: float = 0.0,
    progress: bool = False,
) -> Path:
    """Write the demo dataset.

    Equal arguments write equal bytes. The folder appears when it is complete.

    Parameters
    ----------
    folder : Path
        New, or empty.
    participants, stimuli, runs : int
        How many; every run shows every picture once.
    spaces : sequence of str
        Kinds of preprocessed brain images, of `SPACES`; a region has the same time courses in each.
    seed : int
        Of everything drawn at random, the network's weights included.
    voxel_size : float
        Of the BOLD images, in millimetres, 3 to 10.
    noise : float
        Multiplies all that is not response to a picture; at 1, scores of single voxels are like those of real data.
    alike : float
        Share of the variance of a voxel's responses that it has in common with the same voxel of every participant.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If an argument makes no sense.
    OutputError
        If the folder holds something, or cannot be written.
    """
    _check(participants, stimuli, runs, spaces, seed, voxel_size, noise, alike)
    place = Path(folder).resolve()
    try:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise OutputError(f"{folder}: is there already and not an empty folder; give another or remove it")
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as beside:
            root = Path(beside) / place.name
            root.mkdir()
            _Demo.plan(root, stimuli, seed, voxel_size, noise, alike, spaces).write(
                participants, runs, progress=progress
            )
            root.replace(place)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); give another folder") from error
    return folder


def _check(
    participants: int, stimuli: int, runs: int, spaces: Sequence[str], seed: int, voxel_size: float, noise: float,
    alike: float,
) -> None:  # fmt: skip
    unknown = [space for space in spaces if space not in SPACES]
    if unknown or not spaces:
        raise ConfigError(f"spaces {', '.join(unknown) or 'none'}: the demo has {', '.join(SPACES)}; choose of these")
    limits = {
        "participants": (participants, 1, 99), "stimuli": (stimuli, 12, 960), "runs": (runs, 1, 99),
        "seed": (seed, 0, 2**32 - 1), "voxel_size": (voxel_size, 3, 10), "noise": (noise, 0, 100),
        "alike": (alike, 0, 1),
    }  # fmt: skip
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise ConfigError(f"{name} {value}: give a number from {least} to {most}")


def planted_activations(plan: pd.DataFrame, seed: int) -> tuple[str, dict[str, np.ndarray]]:
    """Activations of the planted layers to the demo's pictures.

    Parameters
    ----------
    plan : DataFrame
        What `bidsdnn.demo.pictures.plan_pictures` returned.
    seed : int
        Of the network's weights.

    Returns
    -------
    label : str
        The network's label.
    activations : dict of str to ndarray, shape (stimuli, units)
        By layer.
    """
    network = build("demo", weights="none", seed=seed)
    layers = [layer for layer in LAYERS.values() if layer]
    seen: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    with Recorder(network.module, layers) as record:
        for _, row in plan.iterrows():
            for layer, value in record(network.preprocess(draw_picture(row)).unsqueeze(0)).items():
                seen[layer].append(value.numpy().reshape(-1).astype(float))
    return network.label, {layer: np.stack(values) for layer, values in seen.items()}


@dataclass(frozen=True, eq=False)
class _Demo:
    """What all participants share, and how one is written."""

    root: Path
    seed: int
    noise: float
    alike: float
    pictures: pd.DataFrame
    network: str
    activations: dict[str, np.ndarray]
    template: Template
    grid: Grid
    labels: np.ndarray
    volume: bool
    sheets: Sheets | None

    @classmethod
    def plan(
        cls, root: Path, stimuli: int, seed: int, voxel_size: float, noise: float, alike: float, spaces: Sequence[str]
    ) -> _Demo:
        pictures = plan_pictures(stimuli, np.random.default_rng([seed, zlib.crc32(b"pictures")]))
        network, activations = planted_activations(pictures, seed)
        template = Template.load()
        grid = template.grid(voxel_size)
        brain = template.head(grid, np.random.default_rng(0)).brain
        labels = draw_regions(grid, brain)
        surface, cifti = "surface" in spaces, "cifti" in spaces
        sheets = Sheets(root, grid, lay_out(grid, brain, labels), surface, cifti) if surface or cifti else None
        return cls(
            root, seed, noise, alike, pictures, network, activations, template, grid, labels, "volume" in spaces, sheets
        )

    def rng(self, *names: object) -> np.random.Generator:
        """Randomness that depends on a name and not on what was drawn before."""
        return np.random.default_rng([self.seed, zlib.crc32("/".join(map(str, names)).encode())])

    def write(self, participants: int, runs: int, *, progress: bool) -> None:
        labels = [f"{number:02d}" for number in range(1, participants + 1)]
        files.write_root(self.root, labels, self.rng("participants"), surfaces=self.sheets is not None)
        (self.root / "stimuli").mkdir()
        write_pictures(self.root / "stimuli", self.pictures)
        hrfs = {label: Hrf.draw(self.rng(label, "hrf")) for label in labels}
        regions = {
            name: {"layer": LAYERS[name], "voxels": int((self.labels == index).sum())}
            for index, name in enumerate(REGIONS, start=1)
        }
        truth = {
            "network": self.network, "weights": "none", "seed": self.seed, "regions": regions,
            "noise": self.noise, "alike": self.alike, "mean_response_percent": MEAN_RESPONSE,
            "picture_response_percent": PICTURE_RESPONSE,
            "hrf": {label: vars(hrf) for label, hrf in hrfs.items()},
        }  # fmt: skip
        files.write_planted(self.root, self.grid, self.labels, list(REGIONS), truth, self.pictures)
        if self.sheets:
            self.sheets.write_atlas(list(REGIONS))
        files.write_fmriprep_root(self.root, surfaces=self.sheets is not None)
        with tqdm(total=participants * runs, disable=not progress, unit="run") as bar:
            for label in labels:
                self.write_participant(label, runs, hrfs[label], bar)

    def write_participant(self, label: str, runs: int, hrf: Hrf, bar: tqdm) -> None:
        anatomy = self.template.head(self.template.grid(anatomy_size(self.grid.affine[0, 0])), self.rng(label, "head"))
        files.write_anatomy(self.root, label, anatomy)
        if self.sheets:
            self.sheets.write_anatomy(label)
        head = self.template.head(self.grid, self.rng(label, "head"))
        driven, responses = self.picture_responses(label)
        for run in range(1, runs + 1):
            self.write_run(label, run, head, hrf, driven, responses)
            bar.update()

    def picture_responses(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Where a participant responds, shape (x, y, z), and the percent signal change, stimuli x voxels."""
        driven = np.zeros(self.grid.shape, dtype=bool)
        volume = np.zeros((len(self.pictures), *self.grid.shape))
        for index, name in enumerate(REGIONS, start=1):
            layer, where = LAYERS[name], self.labels == index
            if layer is not None and where.any():
                driven |= where
                layer_responses, places = self.activations[layer], self.grid.places[where]
                own = read_out(layer_responses, places, self.rng(label, "weights", name))
                if self.alike:
                    common = read_out(layer_responses, places, self.rng("weights", name))
                    mixed = np.sqrt(self.alike) * common + np.sqrt(1 - self.alike) * own
                    own = mixed / mixed.std(axis=0)
                volume[:, where] = own
        return driven, MEAN_RESPONSE + PICTURE_RESPONSE * volume[:, driven]

    def write_run(self, label: str, run: int, head: Head, hrf: Hrf, driven: np.ndarray, responses: np.ndarray) -> None:
        rng = self.rng(label, "run", run)
        trials = plan_trials(self.pictures["file"].tolist(), self.pictures["category"].tolist(), rng)
        volumes = count_volumes(len(trials))
        row = {file: i for i, file in enumerate(self.pictures["file"])}
        catch = np.full(responses.shape[1], MEAN_RESPONSE)
        amplitudes = np.stack([responses[row[f]] if f in row else catch for f in trials["stim_file"]])
        response = evoked(trials["onset"].to_numpy(), volumes, hrf) @ amplitudes
        motion = Motion.draw(volumes, rng)
        data = simulate_run(head, driven, response, motion, rng, noise=self.noise)
        mask = run_mask(head.brain, rng)
        confounds = tabulate_confounds(head, mask, data, motion)
        files.write_run(self.root, label, run, trials, data, mask, self.grid, confounds, volume=self.volume)
        if self.sheets:
            self.sheets.write_run(label, run, data, mask)
