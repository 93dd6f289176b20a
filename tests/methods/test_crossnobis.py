"""Crossnobis from single trials: the formula, rsatoolbox, planted truth, and designs that are not balanced."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from bidsdnn.methods.crossnobis import crossnobis_trials
from bidsdnn.methods.noise import noise_precision, trial_scatter
from bidsdnn.methods.rdm import crossnobis


def a_design(seed=0, *, stimuli=5, folds=3, p=6, dropped=6):
    """Trials of some stimuli in some folds, some of them missing; each stimulus stays in two folds or more."""
    rng = np.random.default_rng(seed)
    fold, stimulus, _ = np.array(list(product(range(folds), range(stimuli), range(2)))).T
    keep = np.ones(len(fold), dtype=bool)
    keep[rng.choice(len(fold), dropped, replace=False)] = False
    keep[(fold == 0) & (stimulus == 1)] = False
    return (
        rng.standard_normal((keep.sum(), p)) + rng.standard_normal((stimuli, p))[stimulus[keep]],
        stimulus[keep],
        fold[keep],
    )


def a_precision(p, seed=1):
    root = np.random.default_rng(seed).standard_normal((2 * p, p))
    return root.T @ root / p


def by_pairs_of_trials(values, stimulus, fold, precision, n):
    def similarity(a, b):
        return np.mean([
            values[i] @ precision @ values[j]
            for i in np.flatnonzero(stimulus == a) for j in np.flatnonzero(stimulus == b) if fold[i] != fold[j]
        ])  # fmt: skip

    return [
        (similarity(a, a) + similarity(b, b) - 2 * similarity(a, b)) / values.shape[1]
        for a, b in combinations(range(n), 2)
    ]


def test_unbalanced_designs_by_the_formula_and_rsatoolbox():
    values, stimulus, fold = a_design()
    precision = a_precision(6)
    found = crossnobis_trials(values, stimulus, fold, n_stimuli=5, precision=precision)
    np.testing.assert_allclose(found, by_pairs_of_trials(values, stimulus, fold, precision, 5), atol=1e-12)
    plain = crossnobis_trials(values, stimulus, fold, n_stimuli=5)
    np.testing.assert_allclose(plain, by_pairs_of_trials(values, stimulus, fold, np.eye(6), 5), atol=1e-12)
    data = pytest.importorskip("rsatoolbox.data", reason="rsatoolbox is not installed")
    calc = pytest.importorskip("rsatoolbox.rdm.calc_unbalanced", reason="rsatoolbox is not installed")
    theirs = data.Dataset(values, obs_descriptors={"stimulus": stimulus, "fold": fold})
    rdm = calc.calc_rdm_unbalanced(theirs, "crossnobis", "stimulus", noise=precision, cv_descriptor="fold")
    # Their stimuli stand in the order of their first trials.
    place = np.argsort(rdm.pattern_descriptors["stimulus"])
    expected = squareform(squareform(rdm.get_vectors()[0])[np.ix_(place, place)], checks=False)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_a_balanced_design_is_crossnobis_of_the_folds_means():
    values, stimulus, fold = a_design(dropped=0)
    keep = stimulus != 1
    values, stimulus, fold = values[keep], np.unique(stimulus[keep], return_inverse=True)[1], fold[keep]
    means = np.array([[values[(fold == f) & (stimulus == s)].mean(axis=0) for s in range(4)] for f in range(3)])
    expected = crossnobis(means, precision=a_precision(6))
    found = crossnobis_trials(values, stimulus, fold, n_stimuli=4, precision=a_precision(6))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_equal_stimuli_have_distance_zero_on_average_and_others_their_own():
    rng = np.random.default_rng(3)
    truth = np.zeros((4, 5))
    truth[3] = 1
    found = []
    for _ in range(2000):
        _, stimulus, fold = a_design(1, stimuli=4, folds=3, p=5, dropped=5)
        found.append(
            crossnobis_trials(truth[stimulus] + rng.standard_normal((len(fold), 5)), stimulus, fold, n_stimuli=4)
        )
    expected = [((truth[a] - truth[b]) ** 2).mean() for a, b in combinations(range(4), 2)]
    error = np.std(found, axis=0) / 2000**0.5
    assert (np.abs(np.mean(found, axis=0) - expected) < 4 * error).all()


def test_a_stimulus_of_one_fold_has_no_distance():
    values, stimulus, fold = a_design(dropped=0)
    keep = (stimulus != 0) | (fold == 0)
    found = crossnobis_trials(values[keep], stimulus[keep], fold[keep], n_stimuli=5)
    np.testing.assert_array_equal(np.isnan(found), [0 in pair for pair in combinations(range(5), 2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, s, f: (v, s, f * 0), "at least 2 repeats, got 1"),
        (lambda v, s, f: (np.where(v > 2, np.nan, v), s, f), "finite"),
        (lambda v, s, f: (v, s[1:], f), "stimulus, folds"),
    ],
)
def test_what_is_no_design(change, message):
    with pytest.raises(ValueError, match=message):
        crossnobis_trials(*change(*a_design()), n_stimuli=5)


@pytest.mark.parametrize("method", ["diagonal", "full"])
def test_noise_from_the_scatter_of_trials(method):
    values, stimulus, _ = a_design(p=4)
    once = stimulus == 2
    values = np.vstack([values, values[:1] + 9])
    stimulus = np.append(stimulus, 99)
    deviations, dof = trial_scatter(values, stimulus)
    repeated = [s for s in range(5) if (stimulus == s).sum() > 1]
    assert len(deviations) == sum((stimulus == s).sum() for s in repeated)
    assert dof == len(deviations) - len(repeated) and once.sum() > 1
    expected = np.vstack([values[stimulus == s] - values[stimulus == s].mean(axis=0) for s in repeated])
    ours = noise_precision(deviations, method=method, dof=dof)
    covariance = expected.T @ expected / dof
    reference = 1 / np.diag(covariance) if method == "diagonal" else np.linalg.inv(covariance)
    np.testing.assert_allclose(ours, reference, rtol=1e-9)
    data = pytest.importorskip("rsatoolbox.data", reason="rsatoolbox is not installed")
    noise = pytest.importorskip("rsatoolbox.data.noise", reason="rsatoolbox is not installed")
    theirs = noise.prec_from_unbalanced(
        data.Dataset(values, obs_descriptors={"s": stimulus}), "s", method={"diagonal": "diag"}.get(method, method)
    )
    np.testing.assert_allclose(ours, np.diag(theirs) if ours.ndim == 1 else theirs, rtol=1e-8)


def test_noise_needs_repeats():
    with pytest.raises(ValueError, match="no stimulus was repeated"):
        trial_scatter(np.ones((3, 2)), [0, 1, 2])
    with pytest.raises(ValueError, match="4 degrees of freedom or more, got 3"):
        noise_precision(np.random.default_rng(0).standard_normal((6, 4)), method="full", dof=3)
