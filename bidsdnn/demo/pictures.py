"""The demo's pictures: objects that differ at a low, a middle and a high level, the levels crossed.

High level is an object's category (its outline), middle level its texture, low level its place (near the middle of a
quarter), hue, contrast, size and tilt. Categories and textures are crossed, and the low-level factors are spread
evenly in a random order, so that no level can be read from another.
"""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

# Width and height in pixels.
SIZE = 96
GREY = 0.5
TINT = 0.3
# Pictures are drawn this many times larger, then averaged, for smooth outlines.
_OVERSAMPLING = 4


def _curve(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _outlines() -> dict[str, list[tuple[float, float]]]:
    """Corners of each category's outline in a frame of -1 to 1, y pointing down."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outer, inner = np.radians(np.linspace(50.6, 309.4, 50)), np.radians(np.linspace(281.8, 78.2, 40))
    spikes = np.where(np.arange(10) % 2, 0.45, 1.05)
    return {
        "fish": [
            (-1.0, -0.6), (-0.5, -0.12), (-0.2, -0.4), (0.2, -0.5), (0.65, -0.36), (1.0, 0.0),
            (0.65, 0.36), (0.2, 0.5), (-0.2, 0.4), (-0.5, 0.12), (-1.0, 0.6), (-0.82, 0.0),
        ],
        "heart": _curve(
            0.9 * np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 18,
        ),
        "house": [
            (-0.95, -0.1), (0.0, -0.9), (0.95, -0.1), (0.7, -0.1), (0.7, 0.8), (0.25, 0.8), (0.25, 0.3),
            (-0.15, 0.3), (-0.15, 0.8), (-0.7, 0.8), (-0.7, -0.1),
        ],
        "moon": _curve(0.95 * np.cos(outer), 0.95 * np.sin(outer))
        + _curve(0.45 + 0.75 * np.cos(inner), 0.75 * np.sin(inner)),
        "star": _curve(spikes * np.sin(np.pi * np.arange(10) / 5), -spikes * np.cos(np.pi * np.arange(10) / 5)),
        "tree": [
            (0.0, -1.05), (0.48, -0.35), (0.25, -0.35), (0.75, 0.5), (0.16, 0.5), (0.16, 1.0),
            (-0.16, 1.0), (-0.16, 0.5), (-0.75, 0.5), (-0.25, -0.35), (-0.48, -0.35),
        ],
    }  # fmt: skip


def _textures(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Each texture's brightness, -1 to 1, at points of the object's frame."""
    return {
        "stripes": np.tanh(2 * np.sin(13 * x)),
        "bands": np.tanh(2 * np.sin(8 * y)),
        "checks": np.tanh(3 * np.sin(11 * x) * np.sin(11 * y)),
        "rings": np.tanh(2 * np.cos(10 * np.hypot(x, y))),
    }


def plan_pictures(stimuli: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose what each picture shows.

    Parameters
    ----------
    stimuli : int
        Number of pictures.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        One row a picture: `file`, `category`, `texture`, `x` and `y` (of the centre, -1 to 1 over the picture),
        `hue` (0 to 1), `contrast` (0 to 1), `size` (half width, fraction of the picture's) and `tilt` (degrees).
    """
    categories, textures = sorted(_outlines()), sorted(_textures(np.zeros(1), np.zeros(1)))
    index = np.arange(stimuli)
    category = np.take(categories, index % len(categories))
    # Shifting by one each full turn keeps the crossing balanced also when the two numbers share a divisor.
    texture = np.take(textures, (index + index // np.lcm(len(categories), len(textures))) % len(textures))

    def spread(low: float, high: float) -> np.ndarray:
        return low + (high - low) * (rng.permutation(stimuli) + 0.5) / stimuli

    quarter = rng.permutation(index) % 4
    table = pd.DataFrame({"category": category, "texture": texture})
    table = table.assign(
        x=np.where(quarter % 2, 0.42, -0.42) + spread(-0.06, 0.06),
        y=np.where(quarter // 2, 0.42, -0.42) + spread(-0.06, 0.06),
        hue=spread(0, 1), contrast=spread(0.5, 1.0), size=spread(0.46, 0.54), tilt=spread(-12, 12),
    ).round(4)  # fmt: skip
    number = table.groupby(["category", "texture"]).cumcount() + 1
    names = table["category"] + "-" + table["texture"] + "-" + number.astype(str).str.zfill(2) + ".png"
    table.insert(0, "file", names)
    return table.sort_values("file", ignore_index=True)


def draw_picture(plan: pd.Series) -> Image.Image:
    """Draw one picture: a textured object on a pale background of the opposite hue.

    Parameters
    ----------
    plan : Series
        A row of `plan_pictures`.

    Returns
    -------
    PIL.Image.Image
        RGB, `SIZE` x `SIZE`.
    """
    wide = SIZE * _OVERSAMPLING
    axis = (np.arange(wide) + 0.5) / wide * 2 - 1
    tilt = np.exp(1j * np.radians(plan["tilt"]))
    centre = plan["x"] + 1j * plan["y"]
    corners = [centre + plan["size"] * tilt * complex(x, y) for x, y in _outlines()[plan["category"]]]
    canvas = Image.new("1", (wide, wide))
    ImageDraw.Draw(canvas).polygon([((c.real + 1) / 2 * wide, (c.imag + 1) / 2 * wide) for c in corners], fill=1)
    inside = np.asarray(canvas, dtype=float)[..., None]
    place = (axis[None, :] + 1j * axis[:, None] - centre) / (plan["size"] * tilt)
    texture = _textures(place.real, place.imag)[plan["texture"]][..., None]
    colour = np.array(colorsys.hsv_to_rgb(plan["hue"], 0.75, 0.9))
    painted = GREY + plan["contrast"] * (colour * (1 - 0.45 * (1 - texture)) - GREY)
    # Of the grey's brightness and the opposite hue: only what sees colour sees the background.
    wash = GREY - TINT * (colour - colour.mean())
    picture = wash + inside * (painted - wash)
    pixels = picture.reshape(SIZE, _OVERSAMPLING, SIZE, _OVERSAMPLING, 3).mean((1, 3))
    return Image.fromarray(np.round(255 * pixels).astype(np.uint8))


def write_pictures(folder: Path, plan: pd.DataFrame) -> None:
    """Draw all pictures as PNG files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    plan : DataFrame
        What `plan_pictures` returned.
    """
    for _, row in plan.iterrows():
        draw_picture(row).save(folder / row["file"])
