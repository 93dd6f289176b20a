"""Wide tables made narrow: inner products in one pass, and the coordinates that follow from them.

The one idea: whatever is linear in a layer's units and wanted per stimulus (distances, ridge, principal
components) needs the stimuli x stimuli inner products only, and those are summed over blocks of units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.signal import periodogram
from scipy.sparse import csr_array
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

Float = NDArray[np.float64]

_GRAM_COLUMNS = 8192
"""Columns read at a time; a constant, because the order of summation decides the last bits."""
_ROWS = 256
"""Rows, or columns, of a table of items x items that are worked on at a time, where it is large."""
_NUMBERS = 2**23
"""Of a table that is worked on at a time."""
_MOST_EVD = 30_000
"""Items up to which LAPACK's workspace of twice their square can be addressed."""
SINGLE = 4_000_000
"""From this many values on, a float32 table is multiplied in float32 and summed over blocks in float64."""


class Spectrum(NamedTuple):
    """The thin singular value decomposition of a column-centred table, its null directions left out."""

    mean: torch.Tensor
    """(p,) column means."""
    left: torch.Tensor
    """(n, rank) left singular vectors."""
    scale: torch.Tensor
    """(rank,) singular values, descending."""
    right: torch.Tensor
    """(p, rank) right singular vectors."""

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of the non-zero eigenvalues of X'X for centred X, the unit of a relative penalty."""
        return float((self.scale**2).mean()) if len(self.scale) else 1.0


def gram(values: Any, *, block: int = _GRAM_COLUMNS) -> tuple[Float, Float]:
    """Inner products between the rows of a wide table, summed over blocks of its columns.

    Parameters
    ----------
    values : array-like, shape (n, p)
        Anything with a ``shape`` that can be sliced ``values[:, a:b]``: an array, a memory map, a file.
    block : int
        Columns held in memory at a time.

    Returns
    -------
    products : array, shape (n, n)
        Raw (uncentred) inner products X X', exactly symmetric, accumulated in float64. Exact to 1e-12; of a float32
        table of 4 million values or more with at least as many columns as rows, to 1e-6 of the inner products of
        the table with its columns centred, which is what distances and regressions see.
    row_sums : array, shape (n,)
        The sum of each row, with which rows can be centred afterwards.

    Raises
    ------
    ValueError
        If the table is not two-dimensional, or holds a value that is not finite.
    """
    if len(values.shape) != 2:
        raise ValueError(f"values: expected shape (n, p), got {tuple(values.shape)}")
    if block < 1:
        raise ValueError(f"block: expected at least 1 column, got {block}")
    n, p = values.shape
    # A table with more rows than columns has directions of no length, which rounding must not lengthen.
    single = p >= n and n * p >= SINGLE
    products, row_sums = np.zeros((n, n)), np.zeros(n)
    for columns in blocks(p, block):
        part = np.asarray(values[:, columns])
        if single and part.dtype == np.float32 and _add_single(part, products, row_sums):
            continue
        part = part.astype(np.float64)
        if not np.isfinite(part).all():
            row, column = np.argwhere(~np.isfinite(part))[0]
            raise ValueError(
                f"values: expected finite numbers, got {part[row, column]} "
                f"in row {row}, column {columns.start + column}"
            )
        products += part @ part.T
        row_sums += part.sum(axis=1)
    return products, row_sums


def _add_single(part: NDArray[np.float32], total: Float, row_sums: Float) -> bool:
    """Add a block's inner products and row sums, multiplied in float32; nothing, and False, if they are not finite.

    Less the columns' means m, what the rows share does not drown how they differ: with X = C + 1m', X X' is
    C C' + (C m) 1' + 1 (C m)' + m'm, and only the first is large work.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        mean = part.mean(axis=0)
        centred = part - mean
        mean = mean.astype(np.float64)
        along, sums = (centred @ np.stack([mean, np.ones(len(mean))], axis=1).astype(np.float32)).astype(np.float64).T
        products = centred @ centred.T
    if not (np.isfinite(along).all() and np.isfinite(sums).all() and np.isfinite(products).all()):
        return False
    for rows in blocks(len(total), _ROWS):
        # In this order the sum of each two rows is the same both ways, and the matrix exactly symmetric.
        total[rows] += products[rows] + (np.add.outer(along[rows], along) + mean @ mean)
    row_sums += sums + mean.sum()
    return True


def rotation(gram_matrix: ArrayLike, *, tolerance: float = 1e-10, overwrite: bool = False) -> Float:
    """Coordinates of the items in as few columns as their inner products need, without loss.

    Distances and inner products between rows are those of the original table, so least squares, ridge
    regression and principal components give the same predictions from either. With G = U L U', the
    coordinates are U sqrt(L).

    Parameters
    ----------
    gram_matrix : array-like, shape (n, n)
        Symmetric inner products between items.
    tolerance : float
        Directions whose eigenvalue is at most this share of the largest are dropped as rounding.
    overwrite : bool
        Whether the matrix is not needed any more, and its memory may be used.

    Returns
    -------
    array, shape (n, rank)
        Z with Z Z' = G, columns by descending size; the largest entry of a column is positive.

    Raises
    ------
    ValueError
        If the matrix is not square, not symmetric or not finite.
    """
    products = np.asarray(gram_matrix, dtype=np.float64)
    if products.ndim != 2 or products.shape[0] != products.shape[1]:
        raise ValueError(f"gram_matrix: expected shape (n, n), got {products.shape}")
    if not np.isfinite(products).all():
        raise ValueError("gram_matrix: expected finite numbers, got NaN or infinity")
    size, apart = 0.0, 0.0
    for rows in blocks(len(products), _ROWS):
        size = max(size, np.abs(products[rows]).max(initial=0.0))
        apart = max(apart, np.abs(products[rows] - products[:, rows].T).max(initial=0.0))
    if apart > 1e-8 * size:
        raise ValueError("gram_matrix: expected a symmetric matrix, got one that differs from its transpose")
    if size == 0:
        return np.zeros((len(products), 0))
    # The transpose is the same matrix, columns one behind the other, in which LAPACK works without a copy.
    driver = "evd" if len(products) <= _MOST_EVD else "evr"
    eigenvalues, vectors = eigh(products.T, overwrite_a=overwrite, check_finite=False, driver=driver)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rank = int((eigenvalues > tolerance * eigenvalues[0]).sum())
    coordinates = np.empty((len(products), rank))
    for columns in blocks(rank, _ROWS):
        some = vectors[:, columns]
        # An eigenvector's sign is arbitrary and differs between LAPACK builds: fix it by the largest entry.
        largest = np.take_along_axis(some, np.abs(some).argmax(axis=0)[None], axis=0)
        coordinates[:, columns] = some * (np.sign(largest) * np.sqrt(eigenvalues[columns]))
    return coordinates


def spectrum(x: torch.Tensor) -> Spectrum:
    """Centre the columns of a table and decompose it into its singular vectors.

    Parameters
    ----------
    x : tensor, shape (n, p)

    Returns
    -------
    Spectrum
        Of at most min(n - 1, p) directions; none for a table whose rows are all equal.
    """
    mean = x.mean(dim=0)
    left, scale, right = torch.linalg.svd(x - mean, full_matrices=False)
    # Centring subtracts numbers of the size of x itself, so rounding is judged by x and not by what is left.
    floor = torch.finfo(x.dtype).eps * max(x.shape) * torch.linalg.norm(x)
    keep = scale > floor
    return Spectrum(mean, left[:, keep], scale[keep], right[keep].T)


def blocks(size: int, step: int) -> Iterator[slice]:
    """Cut ``range(size)`` into consecutive slices of ``step``, the last one shorter."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def at_a_time(rows: int, most: int) -> int:
    """Columns of so many rows that are worked on at a time, so that a table of them stays below 70 MB in float64."""
    return max(1, min(most, _NUMBERS // max(rows, 1)))


def float64_device(device: str) -> torch.device:
    """Return the device asked for, or the CPU where that device has no float64 (Apple's mps)."""
    wanted = torch.device(device)
    return torch.device("cpu") if wanted.type == "mps" else wanted


def random_dimensions(n: int, *, eps: float = 0.1) -> int:
    """Dimensions that keep all distances between n points under random projection, by Johnson and Lindenstrauss.

    Parameters
    ----------
    n : int
        Points.
    eps : float
        Largest relative change of a squared distance.

    Returns
    -------
    int
        At least 4 ln n / (eps^2 / 2 - eps^3 / 3), of scikit-learn's `johnson_lindenstrauss_min_dim`; at least 1.
    """
    return max(1, int(johnson_lindenstrauss_min_dim(n_samples=max(n, 1), eps=eps)))


def sparse_projection(units: int, dimensions: int, *, seed: int) -> csr_array:
    """Units were projected to fewer random dimensions by a sparse matrix (Li, Hastie and Church 2006).

    Parameters
    ----------
    units, dimensions : int
    seed : int

    Returns
    -------
    csr_array of float32, shape (dimensions, units)
        Of density d = 1 / sqrt(units); entries that are not zero are +-1 / sqrt(d * dimensions), so that squared
        distances are kept on average. scikit-learn's `SparseRandomProjection`.

    Raises
    ------
    ValueError
        If there are no more units than dimensions.
    """
    if not 0 < dimensions < units:
        raise ValueError(f"dimensions: expected 1 to {units - 1} for {units} units, got {dimensions}")
    maker = SparseRandomProjection(n_components=dimensions, random_state=seed, compute_inverse_components=False)
    return csr_array(maker.fit(csr_array((1, units), dtype=np.float32)).components_.astype(np.float32))


def pca(values: ArrayLike, n: float) -> Float:
    """Principal component scores of all stimuli, as DNNBrain's ``dnn_fe pca`` gives them.

    They are fitted to all rows: scores of a test set are not independent of the training set. For the published
    analysis only; elsewhere components are fitted within folds.

    Parameters
    ----------
    values : array-like, shape (n_stimuli, units)
    n : int or float
        Number of components, at most min(n_stimuli, units); a fraction below 1 takes as few as explain more than
        that share of the variance.

    Returns
    -------
    array, shape (n_stimuli, components)
        Centred; the largest entry of each column in absolute value is positive, for a component's sign is arbitrary.

    Raises
    ------
    ValueError
        If n is out of range.
    """
    return principal_scores(np.asarray(values, dtype=np.float64), n)[0]


def principal_scores(values: Any, n: float) -> tuple[Float, float]:
    """Principal component scores of all rows of a table, and the share of the variance that they explain.

    Parameters
    ----------
    values, n
        As of `pca`; of a large table with more columns than rows, which may lie on disk, inner products are summed
        over blocks of columns.

    Returns
    -------
    scores : array, shape (n_stimuli, components)
    share : float
        From 0 to 1; 0 where nothing varies.

    Raises
    ------
    ValueError
        If n is out of range.
    """
    rows, columns = values.shape
    most = min(rows, columns)
    if not (0 < n < 1 or (n == int(n) and 1 <= n <= most)):
        raise ValueError(f"n: expected 1 to {most} components, or a share between 0 and 1, got {n}")
    if columns >= rows and rows * columns >= SINGLE:
        products, _ = gram(values)
        mean = products.mean(axis=0)
        every = rotation(products - mean - mean[:, None] + mean.mean())
        every = np.pad(every, ((0, 0), (0, most - every.shape[1])))
    else:
        x = np.asarray(values[:, :], dtype=np.float64)
        left, scale, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        every = left * scale
    size = (every**2).sum(axis=0)
    shares = np.cumsum(size) / max(float(size.sum()), np.finfo(float).tiny)
    count = int(n) if n >= 1 else min(int(np.searchsorted(shares, n, side="right")) + 1, most)
    scores: Float = every[:, :count]
    largest = np.take_along_axis(scores, np.abs(scores).argmax(axis=0)[None], axis=0)
    return scores * np.where(largest < 0, -1.0, 1.0), float(shares[count - 1])


def histogram(values: ArrayLike, bins: int) -> Float:
    """Counts of values in equal bins between the least and the largest of each row, as DNNBrain's ``dnn_fe hist``.

    Parameters
    ----------
    values : array-like, shape (..., m)
    bins : int

    Returns
    -------
    array, shape (..., bins)
        As `numpy.histogram` of each row; a row of equal values lies between half a unit below and above, and one with
        a value that is not finite is NaN.

    Raises
    ------
    ValueError
        If there are no bins.
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    x = np.asarray(values)
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    rows[bad] = 0
    low, high = rows.min(axis=1), rows.max(axis=1)
    equal = low == high
    low, high = low - 0.5 * equal, high + 0.5 * equal
    edges = np.linspace(low, high, bins + 1, axis=1)
    # Arithmetic finds the bin, or one beside it where a value lies on an edge: the edges decide, as numpy has it.
    found = ((rows - low[:, None]) * (bins / (high - low))[:, None]).astype(np.int64)
    found = found.clip(0, bins - 1)
    found -= rows < np.take_along_axis(edges, found, axis=1)
    found += (rows >= np.take_along_axis(edges, found + 1, axis=1)) & (found < bins - 1)
    places = found + bins * np.arange(len(rows))[:, None]
    counts = np.bincount(places.ravel(), minlength=bins * len(rows)).reshape(len(rows), bins).astype(np.float64)
    counts[bad] = np.nan
    return counts.reshape(*x.shape[:-1], bins)


def power_spectrum(values: ArrayLike, n: int) -> Float:
    """The first n entries of each row's periodogram, as DNNBrain's ``dnn_fe psd``.

    Parameters
    ----------
    values : array-like, shape (..., m)
    n : int
        Frequencies from 0 on, at most m // 2 + 1.

    Returns
    -------
    array, shape (..., n)
        |F|^2 / m of the row less its mean, twice that where a negative frequency stands for the same.

    Raises
    ------
    ValueError
        If there are fewer frequencies.
    """
    x = np.asarray(values, dtype=np.float64)
    if not 1 <= n <= x.shape[-1] // 2 + 1:
        raise ValueError(f"n: expected 1 to {x.shape[-1] // 2 + 1} frequencies of {x.shape[-1]} values, got {n}")
    return np.asarray(periodogram(x, axis=-1)[1][..., :n])
