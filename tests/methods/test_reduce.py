from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from bidsdnn.methods import reduce
from bidsdnn.methods.rdm import from_gram
from bidsdnn.methods.reduce import (
    blocks,
    float64_device,
    gram,
    histogram,
    pca,
    power_spectrum,
    principal_scores,
    rotation,
    spectrum,
)


class Lazy:
    """Stands for a dataset on disk: a shape, slices of columns, and nothing else."""

    def __init__(self, values):
        self._values, self.shape, self.widest = values, values.shape, 0

    def __getitem__(self, key):
        part = self._values[key]
        self.widest = max(self.widest, part.shape[1])
        return part


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 17, 4096])
def test_gram_streams_the_inner_products(dtype, block):
    values = np.random.default_rng(0).standard_normal((9, 100)).astype(dtype)
    lazy = Lazy(values)
    products, sums = gram(lazy, block=block)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(products, exact @ exact.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums, exact.sum(axis=1), rtol=1e-12, atol=1e-12)
    assert (products == products.T).all()
    assert lazy.widest == min(block, 100)


@pytest.mark.parametrize("offset", [0, 30])
def test_gram_of_a_large_single_precision_table_is_exact_where_it_matters(offset, monkeypatch):
    rng = np.random.default_rng(3)
    values = rng.standard_normal((12, 9000)).astype(np.float32)
    values += np.float32(offset) * rng.random(9000, dtype=np.float32)
    exact = values.astype(np.float64)
    monkeypatch.setattr("bidsdnn.methods.reduce.SINGLE", 1000)
    products, sums = gram(values, block=4096)
    assert (products == products.T).all()
    assert (products != exact @ exact.T).any(), "not the path in single precision"
    centring = np.eye(12) - 1 / 12
    energy = (exact - exact.mean(axis=0)).var() * 9000
    np.testing.assert_allclose(
        centring @ products @ centring, centring @ (exact @ exact.T) @ centring, atol=1e-6 * energy
    )
    np.testing.assert_allclose(sums, exact.sum(axis=1), rtol=1e-5, atol=1e-6 * np.abs(exact).sum(axis=1).max())
    for metric in ("correlation", "cosine", "euclidean"):
        np.testing.assert_allclose(from_gram(metric, products, sums, 9000), pdist(exact, metric), rtol=1e-5, atol=1e-5)


def test_gram_in_single_precision_falls_back_where_products_overflow_and_refuses_nan(monkeypatch):
    monkeypatch.setattr("bidsdnn.methods.reduce.SINGLE", 10)
    values = np.random.default_rng(4).standard_normal((4, 50)).astype(np.float32)
    large = values * np.float32(1e25)
    np.testing.assert_allclose(gram(large)[0], large.astype(np.float64) @ large.astype(np.float64).T)
    values[1, 7] = np.nan
    with pytest.raises(ValueError, match="got nan in row 1, column 7"):
        gram(values)


def test_gram_refuses_what_is_not_finite_and_says_where():
    values = np.zeros((4, 50))
    values[2, 33] = np.inf
    with pytest.raises(ValueError, match="got inf in row 2, column 33"):
        gram(values, block=10)
    with pytest.raises(ValueError, match=r"expected shape \(n, p\), got \(3,\)"):
        gram(np.zeros(3))
    with pytest.raises(ValueError, match="block: expected at least 1 column, got 0"):
        gram(np.zeros((3, 3)), block=0)


@pytest.mark.parametrize("p", [3, 40])
def test_rotation_keeps_inner_products_and_distances(p):
    values = np.random.default_rng(1).standard_normal((12, p)) + 2
    z = rotation(gram(values)[0])
    assert z.shape == (12, min(12, p))
    np.testing.assert_allclose(z @ z.T, values @ values.T, atol=1e-10)
    np.testing.assert_allclose(pdist(z), pdist(values), atol=1e-9)
    assert (np.diff((z**2).sum(axis=0)) <= 0).all()


def test_rotation_has_a_sign_that_does_not_depend_on_the_eigensolver(monkeypatch):
    products = gram(np.random.default_rng(2).standard_normal((8, 20)))[0]
    expected = rotation(products)
    eigh = np.linalg.eigh

    def flipped(matrix):
        eigenvalues, vectors = eigh(matrix)
        return eigenvalues, vectors * np.where(np.arange(8) % 2, 1, -1)

    monkeypatch.setattr(np.linalg, "eigh", flipped)
    np.testing.assert_array_equal(rotation(products), expected)


def test_rotation_tolerance_drops_small_directions():
    products = np.diag([4.0, 1.0, 1e-6])
    assert rotation(products, tolerance=1e-3).shape == (3, 2)
    assert rotation(products).shape == (3, 3)
    assert rotation(np.zeros((3, 3))).shape == (3, 0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), r"expected shape \(n, n\), got \(2, 3\)"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "expected finite numbers"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "expected a symmetric matrix"),
    ],
)
def test_rotation_names_what_is_wrong(matrix, message):
    with pytest.raises(ValueError, match=message):
        rotation(matrix)


@pytest.mark.parametrize("shape", [(10, 4), (10, 30)])
def test_spectrum_is_the_centred_decomposition(shape):
    x = torch.from_numpy(np.random.default_rng(3).standard_normal(shape) + 100)
    table = spectrum(x)
    assert len(table.scale) == min(shape[0] - 1, shape[1])
    torch.testing.assert_close(table.left * table.scale @ table.right.T + table.mean, x)
    centred = (x - x.mean(dim=0)).numpy()
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T)
    assert table.mean_eigenvalue == pytest.approx(eigenvalues[eigenvalues > 1e-8].mean())


def test_spectrum_of_equal_rows_has_no_direction():
    table = spectrum(torch.full((6, 3), 0.1, dtype=torch.float64))
    assert len(table.scale) == 0
    assert table.mean_eigenvalue == 1


def test_blocks_cover_everything_once():
    assert [list(range(10))[part] for part in blocks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(blocks(0, 4)) == []


def test_a_device_without_float64_falls_back_to_the_cpu():
    assert float64_device("mps").type == "cpu"
    assert float64_device("cuda").type == "cuda"


def test_pca_over_all_rows_is_scikit_learns():
    x = np.random.default_rng(0).standard_normal((30, 50)) * np.linspace(3, 0.1, 50)
    for n in (1, 7, 30, 0.6):
        theirs = PCA(n_components=n, svd_solver="full").fit_transform(x)
        ours = pca(x, n)
        assert ours.shape == theirs.shape
        signs = np.sign((ours * theirs).sum(0))
        width = min(ours.shape[1], 29)  # the 30th component of 30 centred rows is rounding
        np.testing.assert_allclose((ours * signs)[:, :width], theirs[:, :width], atol=1e-10)
        largest = np.take_along_axis(ours, np.abs(ours).argmax(0)[None], 0)
        assert (largest[0, :width] > 0).all()
    for n in (0, 31, 1.5):
        with pytest.raises(ValueError, match="expected 1 to 30 components"):
            pca(x, n)


def test_histogram_counts_between_least_and_largest():
    x = np.array([[[0.0, 1, 2, 3, 4], [-1, -1, 1, 1, 1]], [[5, 5, 5, 5, 5], [0, 0.1, 0.2, 9, 10]]])
    assert histogram(x, 2).tolist() == [[[2, 3], [2, 3]], [[0, 5], [3, 2]]]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        histogram(x, 0)


def test_histogram_is_numpys():
    rng = np.random.default_rng(0)
    # Rounded values lie on edges often.
    for x in (rng.standard_normal((40, 3, 17)), rng.standard_normal((40, 3, 17)).round(1).astype(np.float32)):
        for bins in (1, 3, 10):
            expected = [np.histogram(row.astype(float), bins)[0] for row in x.reshape(-1, 17)]
            np.testing.assert_array_equal(histogram(x, bins), np.reshape(expected, (40, 3, bins)))
    x = np.array([[1.0, np.nan], [1, 2]])
    np.testing.assert_array_equal(histogram(x, 2), [[np.nan, np.nan], [1, 1]])


def test_components_of_a_large_table_come_from_its_inner_products(monkeypatch):
    x = np.random.default_rng(0).standard_normal((12, 40)).astype(np.float32) + 3
    whole, share = principal_scores(x, 5)
    monkeypatch.setattr(reduce, "SINGLE", 1)
    blocked, blocked_share = principal_scores(x, 5)
    np.testing.assert_allclose(blocked, whole, atol=1e-4)
    theirs = PCA(5, svd_solver="full").fit(x.astype(np.float64)).explained_variance_ratio_.sum()
    np.testing.assert_allclose([share, blocked_share], theirs, rtol=1e-5)
    assert principal_scores(x, 12)[0].shape == (12, 12)
    assert principal_scores(x, 0.5)[0].shape == pca(x, 0.5).shape


@pytest.mark.parametrize("m", [8, 9])
def test_power_spectrum_is_the_formula(m):
    x = np.random.default_rng(0).standard_normal((3, 2, m)) + 5
    power = np.abs(np.fft.fft(x - x.mean(-1, keepdims=True))) ** 2 / m
    half = m // 2 + 1
    twice = np.array([1 if k == 0 or 2 * k == m else 2 for k in range(half)])
    np.testing.assert_allclose(power_spectrum(x, half), power[..., :half] * twice, atol=1e-12)
    assert power_spectrum(x, 2).shape == (3, 2, 2)
    with pytest.raises(ValueError, match="frequencies"):
        power_spectrum(x, half + 1)
