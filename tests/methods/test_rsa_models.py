"""Tests of several models at once: against loops that ask anew for each relabelling, and on noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from bidsdnn.methods.predict import kfold
from bidsdnn.methods.rsa_inference import fisher_mean
from bidsdnn.methods.rsa_models import partial, partial_permutation, weighted, weighted_permutation
from bidsdnn.methods.similarity import label_permutation


def rdms(count, *, n=14, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    found = np.array([pdist(rng.standard_normal((n, 3))) for _ in range(count)])
    return np.round(found, 1) if ties else found


def moved(rdm, order):
    return squareform(squareform(rdm)[np.ix_(order, order)])


@pytest.mark.parametrize("comparison", ["pearson", "spearman", "kendall_tau_a", "cosine", "whitened_pearson"])
def test_weighted_permutation_repeats_the_fit(comparison):
    models, brains = rdms(3), rdms(2, seed=1)
    brains[0] += models[1]
    folds = kfold(14, 3, seed=0)

    def fitted(brain):
        similarity = weighted(models, brain, folds=folds, comparison=comparison)[1]
        return float(fisher_mean(np.nan_to_num(similarity)))

    found, p, weights = weighted_permutation(
        models, brains, folds=folds, comparison=comparison, permutations=25, seed=3
    )
    rng = np.random.default_rng(3)
    orders = [rng.permutation(14) for _ in range(25)]
    for row, brain in enumerate(brains):
        assert found[row] == pytest.approx(fitted(brain), abs=1e-10)
        null = [fitted(moved(brain, order)) for order in orders]
        assert p[row] == (1 + sum(value >= found[row] - 1e-9 for value in null)) / 26
        expected = weighted(models, brain, folds=folds, comparison=comparison)[0].mean(axis=0)
        np.testing.assert_allclose(weights[row], expected, atol=1e-10)
    assert weights[0].argmax() == 1


def test_weighted_finds_two_planted_layers_and_beats_either():
    models = rdms(4, n=30)
    brain = models[0] + 2 * models[3] + rdms(1, n=30, seed=5)[0]
    folds = kfold(30, 5, seed=0)
    found, p, weights = weighted_permutation(models, brain[None], folds=folds, comparison="pearson", permutations=99)
    assert p[0] == 0.01
    assert set(np.argsort(weights[0])[-2:]) == {0, 3}
    single = [weighted(models[i : i + 1], brain, folds=folds, comparison="pearson")[1].mean() for i in range(4)]
    assert found[0] > max(single)


@pytest.mark.parametrize("comparison", ["pearson", "spearman"])
@pytest.mark.parametrize("ties", [False, True])
def test_partial_permutation_is_freedman_and_lanes(comparison, ties):
    models, brains, controls = rdms(3, ties=ties), rdms(2, seed=1, ties=ties), rdms(2, seed=2, ties=ties)
    models[0] += controls[0]
    brains[0] += 2 * controls[0]
    found, p, null = partial_permutation(models, brains, controls, comparison=comparison, permutations=20, seed=4)
    rng = np.random.default_rng(4)
    orders = [rng.permutation(14) for _ in range(20)]

    def seen(rdm):
        return rdm.argsort().argsort() * 1.0 if comparison == "spearman" and not ties else rdm

    for i, model in enumerate(models):
        for j, brain in enumerate(brains):
            assert found[i, j] == pytest.approx(partial(model, brain, controls, comparison=comparison), abs=1e-10)
            if ties and comparison == "spearman":
                continue
            design = np.vstack([np.ones(model.size), *map(seen, controls)]).T
            residual = seen(brain) - design @ np.linalg.lstsq(design, seen(brain), rcond=None)[0]
            expected = [partial(seen(model), moved(residual, o), [seen(c) for c in controls], comparison="pearson")
                        for o in orders]  # fmt: skip
            np.testing.assert_allclose(null[:, i, j], expected, atol=1e-8)
    np.testing.assert_allclose(p, (1 + (null >= found - 1e-10).sum(axis=0)) / 21)


def test_what_is_a_control_has_nothing_left():
    models, brains = rdms(2), rdms(1, seed=1)
    found, p, _ = partial_permutation(models, brains, models[:1], permutations=9)
    assert np.isnan(found[0, 0]) and np.isnan(p[0, 0])
    assert np.isfinite(found[1, 0])
    with pytest.raises(ValueError, match="partial correlation, got 'cosine'"):
        partial_permutation(models, brains, models[:1], comparison="cosine")


@pytest.mark.slow
@pytest.mark.parametrize(("comparison", "shares"), [("pearson", 1.0), ("spearman", 0.5)])
def test_partial_p_is_calibrated_where_the_control_drives_both(comparison, shares):
    """1,000 seeded simulations: model and brain share a control and nothing else.

    Ranks of a sum are no sum of ranks: where a control makes up half of both, partial Spearman keeps about .01 of it.
    """
    rejected, plain = 0, 0
    for simulation in range(1000):
        rng = np.random.default_rng([11, simulation])
        shared, own, other = (rng.standard_normal((18, 4)) for _ in range(3))
        control = shares * pdist(shared)
        model, brain = pdist(own) + control, pdist(other) + control
        options = {"comparison": comparison, "permutations": 99, "seed": simulation}
        rejected += partial_permutation([model], [brain], [control], **options)[1][0, 0] <= 0.05
        plain += label_permutation([model], [brain], **options)[1][0, 0] <= 0.05
    assert 30 <= rejected <= 70
    assert plain > 400


@pytest.mark.slow
def test_weighted_p_is_calibrated():
    """1,000 seeded simulations: nothing relates models and brain."""
    rejected = 0
    for simulation in range(1000):
        rng = np.random.default_rng([12, simulation])
        models = [pdist(rng.standard_normal((20, 5))) for _ in range(4)]
        brain = pdist(rng.standard_normal((20, 5)))
        folds = kfold(20, 3, seed=simulation)
        options = {"folds": folds, "comparison": "spearman", "permutations": 99, "seed": simulation}
        rejected += weighted_permutation(models, [brain], **options)[1][0] <= 0.05
    assert 30 <= rejected <= 70
