"""Threshold-free cluster enhancement: nilearn's in volumes, the sum written out on graphs, rates on noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nilearn.mass_univariate._utils import calculate_tfce
from scipy.ndimage import gaussian_filter, generate_binary_structure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bidsdnn.methods.freedman_lane import orders_of
from bidsdnn.methods.inference import signs
from bidsdnn.methods.tfce import familywise, peaks, peaks_of_effect, tfce
from bidsdnn.spaces import Volume


def written_out(values, edges, step, extent=0.5, height=2.0):
    """For each threshold, find the clusters and give each of their points its part of the sum."""
    found = np.zeros(len(values))
    for h in step * np.arange(1, int(np.nanmax(values) / step + 1e-9) + 1):
        above = values >= h - 1e-12
        joined = edges[above[edges].all(axis=1)]
        graph = coo_array((np.ones(len(joined)), joined.T), shape=(len(values),) * 2)
        part = connected_components(graph, directed=False)[1]
        size = np.bincount(part[above], minlength=part.max() + 1)
        found += np.where(above, size[part] ** extent * h**height * step, 0)
    return found


def test_a_volume_is_enhanced_as_by_nilearn():
    field = gaussian_filter(np.random.default_rng(0).normal(size=(9, 8, 7)), 1)
    field *= 4 / field.max()
    space = Volume(np.ones(field.shape, dtype=bool), np.eye(4))
    theirs = calculate_tfce(field[..., None], generate_binary_structure(3, 1), two_sided_test=False)
    ours = tfce(field[space.mask], space.edges(), step=field.max() / 100)
    np.testing.assert_allclose(ours, theirs[..., 0][space.mask] * field.max() / 100, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_any_graph_is_written_out(seed):
    """A ring with chords, ties, a point of its own, negative and missing values."""
    rng = np.random.default_rng(seed)
    edges = np.array([*((i, (i + 1) % 30) for i in range(30)), *rng.integers(0, 30, size=(8, 2))])
    values = np.round(rng.normal(1, 1.5, size=31), 1)
    values[3] = np.nan
    np.testing.assert_allclose(tfce(values, edges), written_out(values, edges, 0.1), rtol=1e-9)
    np.testing.assert_allclose(
        tfce(values, edges, extent=1, height=1, step=0.3), written_out(values, edges, 0.3, 1, 1), rtol=1e-9
    )


def test_high_values_and_empty_maps_have_an_end():
    edges = np.array([[0, 1]])
    assert np.isfinite(tfce([np.inf, 3.0], edges)).all()
    assert tfce([0.01, -4.0], edges).tolist() == [0, 0]
    assert tfce([2.0, 2.0], np.zeros((0, 2), dtype=int))[0] == pytest.approx(
        sum((0.1 * i) ** 2 for i in range(1, 21)) / 10
    )
    with pytest.raises(ValueError, match="step"):
        tfce([1.0], edges, step=0)
    with pytest.raises(ValueError, match="edges"):
        tfce([1.0], [0, 1])


def test_familywise_p_counts_the_largest_of_every_flip():
    rng = np.random.default_rng(1)
    values, edges = rng.normal(0.4, 1, size=(6, 12)), np.array([(i, i + 1) for i in range(11)])
    values[:, 5] = np.nan
    flips, sampled = signs(6, 100, 0)
    largest = peaks(values, edges, flips)
    every = []
    for flip in itertools.product([-1, 1], repeat=6):
        flipped = values * np.array(flip)[:, None]
        every.append(tfce(flipped.mean(axis=0) / flipped.std(axis=0, ddof=1) * 6**0.5, edges))
    np.testing.assert_allclose(np.sort(largest), np.sort(np.max(every, axis=1)), rtol=1e-6)
    observed = np.where(np.isnan(values).any(axis=0), np.nan, every[-1])
    p = familywise(observed, largest, sampled=sampled)
    expected = (np.max(every, axis=1)[:, None] >= observed - 1e-9).mean(axis=0)
    np.testing.assert_allclose(p, np.where(np.isnan(observed), np.nan, expected))


def test_enhancements_of_an_effect_are_those_of_its_permuted_t_maps():
    rng = np.random.default_rng(6)
    x, held, y = rng.normal(size=7), rng.normal(size=(7, 1)), rng.normal(size=(7, 12))
    edges = np.column_stack([np.arange(11), np.arange(1, 12)])
    orders, _ = orders_of(7, 5, 0)
    reduced = np.column_stack([np.ones(7), held])
    fit = reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    design = np.column_stack([x, reduced])
    expected = []
    for order in orders:
        # Permuting the variables is permuting the residuals the other way round.
        permuted = fit + (y - fit)[np.argsort(order)]
        beta, rest, *_ = np.linalg.lstsq(design, permuted, rcond=None)
        t = beta[0] / np.sqrt(rest / 4 * np.linalg.inv(design.T @ design)[0, 0])
        expected.append(max(tfce(t, edges).max(), tfce(-t, edges).max()))
    gap = np.insert(y, 12, np.nan, axis=1)
    np.testing.assert_allclose(peaks_of_effect(gap, edges, x, held, orders), expected, rtol=1e-6)


@pytest.mark.slow
def test_rates_on_smooth_noise():
    """1,000 groups of 8 participants; a smooth field of 6 x 6 x 6 voxels, 79 random flips."""
    space = Volume(np.ones((6, 6, 6), dtype=bool), np.eye(4))
    edges, rejected = space.edges(), 0
    for seed in range(1000):
        flips, sampled = signs(8, 79, seed, enumerate_up_to=2)
        fields = gaussian_filter(np.random.default_rng([2, seed]).normal(size=(8, 6, 6, 6)), (0, 1, 1, 1))
        maps = fields.reshape(8, -1)
        observed = tfce(maps.mean(axis=0) / maps.std(axis=0, ddof=1) * 8**0.5, edges)
        rejected += familywise(observed, peaks(maps, edges, flips), sampled=sampled).min() <= 0.05
    print(f"enhanced maps: {rejected / 1000:.3f}")
    assert 0.03 < rejected / 1000 < 0.07
