"""Maps in tiles: voxels as slices on the anatomy, vertices as views of the surface.

A map is sliced along its own voxel axes, turned to the nearest right-anterior-superior order, and the background is
looked up at the same places in millimetres. So oblique images, backgrounds of another resolution, and volumes of a
single slice all take one path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidsdnn.report.drawing import INK, LINE, MUTED, Panel, draw
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


def _slices(scan: Scan, strength: Scan, background: Scan | None, colour: Any) -> list[tuple[np.ndarray, str]]:
    """Pictures of a volume's slices, and their names."""
    tiles = []
    for points, name in cut(scan):
        base = _grey(background, points) if background is not None else _silhouette(scan.at(points))
        tiles.append((_over(base, colour(scan.at(points), strength.at(points))), name))
    return tiles


def mosaic(
    scan: Scan | Sheet, strength: Scan | Sheet, background: Scan | None, colour: Any, paint_bar: Any, *, stem: str,
    alt: str, bar_share: float = 0.3, sure: Scan | Sheet | None = None,
) -> Panel:  # fmt: skip
    """Set the slices of a volume or the views of a surface in rows, with the bar of colours below.

    Parameters
    ----------
    scan, strength : Scan or Sheet
        Two maps of one space.
    background : Scan or None
        The anatomy; None shows the outline of the map's voxels.
    colour : callable
        From the values of both to red, green, blue and opacity.
    paint_bar : callable
        Draws the bar on a canvas and axes.
    stem : str
        File name.
    alt : str
        Text alternative.
    bar_share : float
        Width of the bar.
    sure : Scan or Sheet, optional
        1 in what is outlined.

    Returns
    -------
    Panel
    """
    if isinstance(scan, Sheet) and isinstance(strength, Sheet):
        named = views(scan, strength, colour)
    else:
        assert isinstance(scan, Scan) and isinstance(strength, Scan)
        named = _slices(scan, strength, background, colour)
    outlines = _outlines(scan, sure)
    tiles = [pixels for pixels, _ in named]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    ratio = tiles[0].shape[0] / tiles[0].shape[1]
    tile = _TILE if len(tiles) > 2 else 2 * _TILE
    width = max(columns * tile, 430)
    height = rows * (tile * ratio + 26) + 80

    def paint(canvas: Any) -> None:
        canvas.set_layout_engine("none")
        # One pair of axes, in pixels, for all tiles: making axes takes longer than filling them.
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.axis("off")
        left = (width - columns * tile) / 2
        for i, (pixels, name) in enumerate(named):
            row, column = divmod(i, columns)
            start, bottom = left + column * tile, height - (row + 1) * (tile * ratio + 26) + 22
            box = (start, start + tile - 6, bottom, bottom + tile * ratio)
            axes.imshow(pixels, interpolation="none", origin="upper", extent=box, aspect="auto")
            if outlines and outlines[i].any():
                # Dark on light, so that the line is seen on every colour.
                for colour, thick in (("#ffffff", 2.6), ("#000000", 1.1)):
                    axes.contour(outlines[i][::-1], [0.5], colors=[colour], linewidths=thick, extent=box)
            axes.text(start + tile / 2 - 3, bottom - 16, name, ha="center", color=MUTED, fontsize=12.5)
        axes.set(xlim=(0, width), ylim=(0, height))
        bar = canvas.add_axes(((1 - bar_share) / 2, 58 / height, bar_share, 9 / height))
        bar.tick_params(colors=INK, color=LINE, length=0, labelsize=12)
        paint_bar(canvas, bar)

    return draw(stem, (width, height), paint, alt=alt)


def _outlines(scan: Scan | Sheet, sure: Scan | Sheet | None) -> list[np.ndarray]:
    """Which pixels of each tile lie in what is outlined; empty where nothing is."""
    if sure is None or not (sure.values == 1).any():
        return []
    if isinstance(sure, Sheet):
        pictures = views(sure, sure, lambda values, _: np.column_stack([values == 1, *[np.zeros(len(values))] * 2,
                                                                         np.ones(len(values))]))  # fmt: skip
        return [pixels[..., 0] for pixels, _ in pictures]
    assert isinstance(scan, Scan)
    return [(sure.at(points) == 1) * 1.0 for points, _ in cut(scan)]


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
