"""Maps as pictures: voxels as slices on the anatomy, vertices as views of the surface, with a bar of colours below.

A map is sliced along its own voxel axes, turned to the nearest right-anterior-superior order, and the background is
looked up at the same places in millimetres. So oblique images, backgrounds of another resolution, and volumes of a
single slice all take one path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize

from bidsdnn.report.drawing import INK, LINE, MUTED, Panel, draw, shorten
from bidsdnn.report.findings import number
from bidsdnn.report.sheets import Sheet, views
from bidsdnn.spaces import image_data, load_image

MAX_SLICES = 12
_COLUMNS = 6
_TILE = 176
_MAX_PIXELS = 150


@dataclass(frozen=True, eq=False)
class Scan:
    """A 3-D image whose axes run to the right, the front and the top, as nearly as its voxels do.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.
    """

    values: np.ndarray
    affine: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """Millimetres between neighbours along each axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values of the voxels nearest to points, NaN outside.

        Parameters
        ----------
        points : ndarray, shape (..., 3)
            Millimetres.

        Returns
        -------
        ndarray, shape (...)
        """
        inverse = np.linalg.inv(self.affine)
        voxels = np.floor(points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5).astype(int)
        inside = np.all((voxels >= 0) & (voxels < self.values.shape), axis=-1, keepdims=True)
        i, j, k = np.where(inside, voxels, 0).reshape(-1, 3).T
        shape = points.shape[:-1]
        return np.where(inside.reshape(shape), self.values[i, j, k].reshape(shape), np.nan)


def read_scans(path: Path) -> list[Scan]:
    """Read an image as one scan per volume.

    Parameters
    ----------
    path : Path
        A 3-D or 4-D NIfTI image.

    Returns
    -------
    list of Scan

    Raises
    ------
    MissingInputError, DataError
        If the image is not there or cannot be read.
    """
    image = load_image(path)
    data = image_data(image, path)
    data = data.reshape(*data.shape[:3], -1)
    return [oriented(data[..., i], image.affine) for i in range(data.shape[3])]


def oriented(data: np.ndarray, affine: np.ndarray) -> Scan:
    """Turn a volume so that its axes run to the right, the front and the top.

    Parameters
    ----------
    data : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres.

    Returns
    -------
    Scan
    """
    affine = np.asarray(affine, dtype=float)
    order, signs = _nearest_axes(affine)
    data = data.transpose(order)
    turned = affine[:, [*order, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            data = np.flip(data, axis)
            turned[:3, 3] += turned[:3, axis] * (data.shape[axis] - 1)
            turned[:3, axis] *= -1
    return Scan(data, turned)


def _nearest_axes(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """Which voxel axis runs along each of the three directions, and which way; each axis is used once."""
    cosines = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    order, signs = [0, 0, 0], [1, 1, 1]
    free = np.abs(cosines)
    for _ in range(3):
        direction, axis = np.unravel_index(int(np.argmax(free)), (3, 3))
        order[direction], signs[direction] = int(axis), 1 if cosines[direction, axis] >= 0 else -1
        free[direction, :] = -1
        free[:, axis] = -1
    return order, signs


def best_layer(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which layer is highest in each column, counted from 1, and its value.

    Parameters
    ----------
    values : ndarray, shape (layers, columns)

    Returns
    -------
    layer, score : ndarray, shape (columns,)
        NaN where no layer has a value.
    """
    known = np.isfinite(values).any(axis=0)
    filled = np.where(np.isfinite(values), values, -np.inf)
    layer = np.where(known, filled.argmax(axis=0) + 1.0, np.nan)
    return layer, np.where(known, filled.max(axis=0), np.nan)


def peak(values: np.ndarray) -> float:
    """The 99.5th percentile of a map, which one odd voxel does not move; 0 for an empty map."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, 99.5)) if finite.size else 0.0


def score_map(
    scan: Scan | Sheet, background: Scan | None, *, stem: str, label: str, alt: str, floor: float = 0.0,
    highest: float | None = None,
) -> Panel:  # fmt: skip
    """Draw a map of numbers; the lowest fade into the background.

    Parameters
    ----------
    scan : Scan or Sheet
    background : Scan or None
        The anatomy; None shows the outline of the map's voxels.
    stem : str
        File name.
    label : str
        Of the colour bar.
    alt : str
        Text alternative.
    floor : float
        Values at and below are not shown.
    highest : float, optional
        Where the colours end; by default the map's own peak.

    Returns
    -------
    Panel
    """
    top = max(peak(scan.values) if highest is None else highest, floor + 1e-6)
    ramp = matplotlib.colormaps["inferno"].resampled(256)
    ramp = ListedColormap(ramp(np.linspace(0.12, 0.98, 256)))

    def colour(scores: np.ndarray, _: np.ndarray) -> np.ndarray:
        share = np.clip((np.nan_to_num(scores, nan=floor) - floor) / (top - floor), 0, 1)
        pixels = ramp(share)
        pixels[..., 3] = np.clip(share * 3, 0, 1) * np.isfinite(scores)
        return pixels

    def paint(canvas: Any, axes: Any) -> None:
        mappable = matplotlib.cm.ScalarMappable(Normalize(floor, top), ramp)
        bar = canvas.colorbar(mappable, cax=axes, orientation="horizontal", ticks=[floor, (floor + top) / 2, top])
        ticks = [floor, (floor + top) / 2, top]
        bar.ax.set_xticklabels([number(t) if abs(top) <= 1 else f"{t:.3g}" for t in ticks])
        bar.outline.set_visible(False)
        bar.ax.set_xlabel(label, fontsize=12)

    return _mosaic(scan, scan, background, colour, paint, stem=stem, alt=alt)


def layer_map(
    layer: Scan | Sheet,
    score: Scan | Sheet | None,
    background: Scan | None,
    *,
    layers: list[str],
    stem: str,
    alt: str,
    floor: float = 0.0,
    highest: float | None = None,
) -> Panel:
    """Draw which layer is best in each voxel, from dark for shallow to bright for deep.

    Parameters
    ----------
    layer : Scan or Sheet
        Numbers of layers from 1, NaN elsewhere.
    score : Scan, Sheet or None
        Makes weak voxels transparent, and hides those at or below `floor`.
    background : Scan or None
        The anatomy.
    layers : list of str
        Names by depth.
    stem : str
        File name.
    alt : str
        Text alternative.
    floor : float
        Scores at and below are not shown.
    highest : float, optional
        The peak of the scores; by default that of `score`.

    Returns
    -------
    Panel
    """
    palette = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.95, len(layers)))
    top = highest if highest is not None else peak(score.values) if score is not None else 1.0

    def colour(numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
        index = np.clip(np.nan_to_num(numbers, nan=1).astype(int) - 1, 0, len(layers) - 1)
        pixels = palette[index]
        rise = np.clip((np.nan_to_num(scores) - floor) / max((top - floor) / 3, 1e-6), 0, 1)
        pixels[..., 3] = np.isfinite(numbers) * (rise if score is not None else 1.0)
        return pixels

    def paint(canvas: Any, axes: Any) -> None:
        axes.imshow(palette[None], aspect="auto", interpolation="none")
        axes.set_xticks(range(len(layers)), [shorten(name, 13) for name in layers], rotation=32, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    share = max(0.3, min(1.0, 0.075 * len(layers)))
    return _mosaic(layer, score or layer, background, colour, paint, stem=stem, alt=alt, bar_share=share)


def _slices(scan: Scan, strength: Scan, background: Scan | None, colour: Any) -> list[tuple[np.ndarray, str]]:
    """Pictures of a volume's slices, and their names."""
    tiles = []
    for points, name in cut(scan):
        base = _grey(background, points) if background is not None else _silhouette(scan.at(points))
        tiles.append((_over(base, colour(scan.at(points), strength.at(points))), name))
    return tiles


def _mosaic(
    scan: Scan | Sheet, strength: Scan | Sheet, background: Scan | None, colour: Any, paint_bar: Any, *, stem: str,
    alt: str, bar_share: float = 0.3,
) -> Panel:  # fmt: skip
    """Set the slices of a volume or the views of a surface in rows, with the bar of colours below."""
    if isinstance(scan, Sheet) and isinstance(strength, Sheet):
        named = views(scan, strength, colour)
    else:
        assert isinstance(scan, Scan) and isinstance(strength, Scan)
        named = _slices(scan, strength, background, colour)
    tiles = [pixels for pixels, _ in named]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    ratio = tiles[0].shape[0] / tiles[0].shape[1]
    tile = _TILE if len(tiles) > 2 else 2 * _TILE
    width = max(columns * tile, 430)
    height = rows * (tile * ratio + 26) + 80

    def paint(canvas: Any) -> None:
        canvas.set_layout_engine("none")
        left = (width - columns * tile) / 2
        for i, (pixels, name) in enumerate(named):
            row, column = divmod(i, columns)
            bottom = height - (row + 1) * (tile * ratio + 26) + 22
            box = ((left + column * tile) / width, bottom / height, (tile - 6) / width, tile * ratio / height)
            axes = canvas.add_axes(box)
            axes.imshow(pixels, interpolation="none", origin="upper")
            axes.axis("off")
            middle = (left + (column + 0.5) * tile - 3) / width
            canvas.text(middle, (bottom - 16) / height, name, ha="center", color=MUTED, fontsize=12.5)
        bar = canvas.add_axes(((1 - bar_share) / 2, 58 / height, bar_share, 9 / height))
        bar.tick_params(colors=INK, color=LINE, length=0, labelsize=12)
        paint_bar(canvas, bar)

    return draw(stem, (width, height), paint, alt=alt)


def cut(scan: Scan) -> list[tuple[np.ndarray, str]]:
    """Choose slices through the voxels that have values, and the places of their pixels.

    Slices are axial, but a volume that is thin in another direction is cut across that one.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    list of (ndarray of shape (height, width, 3), str)
        Millimetres of each pixel, top row first, and the slice's name.
    """
    known = np.isfinite(scan.values) & (scan.values != 0)
    known = known if known.any() else np.ones(scan.values.shape, dtype=bool)
    lows, highs = zip(*[(np.flatnonzero(known.any(axis=others)).min(), np.flatnonzero(known.any(axis=others)).max())
                        for others in ((1, 2), (0, 2), (0, 1))], strict=True)  # fmt: skip
    thin = int(np.argmin(scan.values.shape))
    axis = thin if scan.values.shape[thin] < 4 else 2
    across, up = [a for a in range(3) if a != axis]
    # The outermost slices hold a few voxels each and would take the place of full ones.
    sizes = known.sum(axis=(across, up))
    filled = np.flatnonzero(sizes >= 0.1 * sizes.max())
    picks = filled[np.unique(np.linspace(0, filled.size - 1, min(MAX_SLICES, filled.size)).round().astype(int))]
    finer = float(np.clip(_MAX_PIXELS / max(highs[across] - lows[across] + 3, highs[up] - lows[up] + 3), 1, 4) // 1)
    grid = []
    for a in (across, up):
        start, stop = lows[a] - 1.5, highs[a] + 1.5
        grid.append(start + (np.arange(int((stop - start) * finer)) + 0.5) / finer)
    slices = []
    for pick in picks:
        voxels = np.empty((grid[1].size, grid[0].size, 3))
        voxels[..., across], voxels[..., up], voxels[..., axis] = grid[0][None], grid[1][::-1, None], pick
        points = voxels @ scan.affine[:3, :3].T + scan.affine[:3, 3]
        middle = (np.array([scan.values.shape]) - 1) / 2
        middle[0, axis] = pick
        place = (middle @ scan.affine[:3, :3].T + scan.affine[:3, 3])[0, axis]
        slices.append((points, f"{'xyz'[axis]} = {place:.0f}".replace("-", "−")))
    return slices


def _grey(background: Scan, points: np.ndarray) -> np.ndarray:
    """The anatomy in grey, transparent where it is empty."""
    known = background.values[np.isfinite(background.values) & (background.values != 0)]
    low, high = np.percentile(known, [2, 98]) if known.size else (0.0, 1.0)
    low = min(low, high * 0.1) if high > 0 else low
    values = background.at(points)
    share = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12), 0, 1)
    pixels = np.repeat((0.12 + 0.76 * share)[..., None], 4, axis=-1)
    pixels[..., 3] = np.isfinite(values) & (values != 0)
    return pixels


def _silhouette(values: np.ndarray) -> np.ndarray:
    """Even grey where a map has values."""
    pixels = np.full((*values.shape, 4), 0.6)
    pixels[..., 3] = 0.5 * np.isfinite(values)
    return pixels


def _over(base: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Lay one picture over another."""
    alpha = layer[..., 3:]
    opacity = alpha + base[..., 3:] * (1 - alpha)
    mixed = layer[..., :3] * alpha + base[..., :3] * base[..., 3:] * (1 - alpha)
    return np.concatenate([mixed / np.maximum(opacity, 1e-9), opacity], axis=-1)
