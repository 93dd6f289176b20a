from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import PredefinedSplit

from bidsdnn.methods.bands import combine
from bidsdnn.methods.models import BandedRidge, Ridge
from bidsdnn.methods.models.banded import candidate_weights
from bidsdnn.methods.predict import kfold, prediction_operator
from bidsdnn.methods.product_measure import Sums, pearsonr_shares, r2_shares
from bidsdnn.methods.scores import fold_pearsonr, pooled_pearsonr, r2, training_means


def bands(n=50, *, widths=(80, 6, 20), targets=12, seed=0, noise=2.0, dtype=np.float64):
    """Bands of other scales and means; targets of the first two."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.standard_normal((n, width)) * scale + 3 for width, scale in zip(widths, (3.0, 0.1, 40.0), strict=False)
    ]
    signal = [part[:, :4] @ rng.standard_normal((4, targets)) / part[:, :4].std() for part in parts[:2]]
    return parts, (sum(signal) + noise * rng.standard_normal((n, targets)) + 5).astype(dtype)


def stacked(parts):
    return np.hstack(parts), [part.shape[1] for part in parts]


@pytest.mark.parametrize("width", [6, 80])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_band_is_ridge(width, dtype):
    parts, y = bands(widths=(width,), dtype=dtype)
    parts, y = parts[0], y
    ridge, banded = Ridge(seed=3).fit(parts[:40], y[:40]), BandedRidge(seed=3).fit(parts[:40], y[:40])
    np.testing.assert_array_equal(banded.penalty_, ridge.penalty_)
    np.testing.assert_allclose(banded.predict(parts[40:]), ridge.predict(parts[40:]), rtol=1e-5, atol=1e-5)
    splits = kfold(50, 5, seed=1)
    np.testing.assert_allclose(BandedRidge().operator(parts, splits), prediction_operator(parts, splits), atol=1e-10)


def test_one_candidate_is_ridge_on_scaled_bands():
    parts, y = bands()
    x, columns = stacked(parts)
    g = np.array([0.7, 0.1, 0.2])
    fitted = BandedRidge([0.3], weights=[g], columns=columns).fit(x[:40], y[:40])
    centred = [part[:40] - part[:40].mean(axis=0) for part in parts]
    scaled = [
        part * np.sqrt(weight / (inside**2).sum(axis=1).mean())
        for part, inside, weight in zip(parts, centred, g, strict=True)
    ]
    expected = Ridge([0.3]).fit(np.hstack(scaled)[:40], y[:40]).predict(np.hstack(scaled)[40:])
    np.testing.assert_allclose(fitted.predict(x[40:]), expected, rtol=1e-8, atol=1e-8)


def test_the_search_is_himalayas():
    ridge = pytest.importorskip("himalaya.ridge")
    parts, y = bands()
    x, columns = stacked(parts)
    weights, penalties = candidate_weights(3, 14, seed=0), np.logspace(-2, 5, 8)
    fold_of = np.empty(40, dtype=int)
    for number, (_, test) in enumerate(kfold(40, 4, seed=2)):
        fold_of[test] = number
    deltas, coef, _, intercept = ridge.solve_group_ridge_random_search(
        [part[:40] for part in parts], y[:40] - y[:40].mean(axis=0), n_iter=np.maximum(weights, 1e-300),
        alphas=penalties, fit_intercept=True, cv=PredefinedSplit(fold_of), return_weights=True, progress_bar=False,
        warn=False,
    )  # fmt: skip
    ours = BandedRidge(
        penalties, n_splits=4, seed=2, weights=np.maximum(weights, 1e-300), relative=False, reach=None, columns=columns
    ).fit(x[:40], y[:40])
    np.testing.assert_allclose(np.log(ours.weights_ / ours.penalty_), deltas, atol=1e-6)
    expected = x[40:] @ coef + intercept + y[:40].mean(axis=0)
    np.testing.assert_allclose(ours.predict(x[40:]), expected, rtol=1e-6, atol=1e-6)


def test_inner_folds_are_refitted_ridges():
    """The closed form for rows left out chooses what ridges fitted without them choose."""
    parts, y = bands(40)
    x, columns = stacked(parts)
    weights, penalties = candidate_weights(3, 9, seed=1), np.logspace(-3, 3, 5)
    fitted = BandedRidge(penalties, seed=5, weights=weights, reach=None, columns=columns).fit(x, y)
    lengths = [((part - part.mean(axis=0)) ** 2).sum(axis=1).mean() for part in parts]
    errors = np.zeros((len(weights), len(penalties), y.shape[1]))
    for i, g in enumerate(weights):
        scaled = np.hstack([p * np.sqrt(w / length) for p, w, length in zip(parts, g, lengths, strict=True)])
        for train, test in kfold(40, 5, seed=5):
            for j, penalty in enumerate(penalties):
                errors[i, j] += (
                    (Ridge([penalty]).fit(scaled[train], y[train]).predict(scaled[test]) - y[test]) ** 2
                ).sum(axis=0)
    best = errors.reshape(-1, y.shape[1]).argmin(axis=0)
    np.testing.assert_array_equal(fitted.penalty_, penalties[best % 5])
    np.testing.assert_array_equal(fitted.weights_, weights[best // 5].T)


def test_searching_near_the_best_penalty_loses_little():
    parts, y = bands(60, targets=60, noise=1.0)
    x, columns = stacked(parts)
    held = [BandedRidge(reach=reach, columns=columns).fit(x[:45], y[:45]).predict(x[45:]) for reach in (None, 1)]
    near, every = (((one - y[45:]) ** 2).mean() for one in held[::-1])
    assert near < every * 1.02


def test_a_band_of_noise_is_shut_out_and_predictions_gain():
    parts, y = bands(120, noise=0.5)
    x, columns = stacked(parts)
    fitted = BandedRidge(columns=columns).fit(x[:90], y[:90])
    alike = BandedRidge(columns=columns, weights=np.ones((1, 3))).fit(x[:90], y[:90])
    assert fitted.weights_[2].mean() < 0.05
    errors = [((model.predict(x[90:]) - y[90:]) ** 2).mean() for model in (fitted, alike)]
    assert errors[0] < 0.8 * errors[1]


def test_a_search_does_not_depend_on_which_targets_are_together():
    parts, y = bands()
    x, columns = stacked(parts)
    whole = BandedRidge(columns=columns).fit(x, y)
    alone = BandedRidge(columns=columns).fit(x, y[:, 3:4])
    np.testing.assert_allclose(alone.predict(x), whole.predict(x)[:, 3:4], rtol=1e-8)


def test_shares_sum_to_the_scores_exactly():
    parts, y = bands(60)
    x, columns = stacked(parts)
    splits = kfold(60, 5, seed=0)
    predicted, folds = np.empty_like(y), []
    grams = np.stack([part @ part.T for part in parts])
    for train, test in splits:
        fitted = BandedRidge(columns=columns).fit_grams(grams[:, train[:, None], train], y[train])
        pieces = np.concatenate([one for _, one in fitted.split_grams(grams[:, test[:, None], train])], axis=2)
        predicted[test] = fitted.predict_grams(grams[:, test[:, None], train])
        np.testing.assert_allclose(pieces.sum(axis=0) + fitted.intercept_, predicted[test])
        folds.append(Sums.of(pieces, y[test] - y[train].mean(axis=0)))
        direct = BandedRidge(columns=columns).fit(x[train], y[train]).predict(x[test])
        np.testing.assert_allclose(direct, predicted[test], rtol=1e-7)
    np.testing.assert_allclose(pearsonr_shares(folds).sum(axis=0), pooled_pearsonr(predicted, y, splits), atol=1e-12)
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(r2_shares(folds, spread).sum(axis=0), r2(predicted, y), atol=1e-12)
    within = np.stack([pearsonr_shares([fold]).sum(axis=0) for fold in folds])
    np.testing.assert_allclose(within, fold_pearsonr(predicted, y, splits), atol=1e-12)
    joined = Sums.joined([Sums.of(pieces[..., :5], (y[test] - y[train].mean(axis=0))[:, :5]),
                          Sums.of(pieces[..., 5:], (y[test] - y[train].mean(axis=0))[:, 5:])])  # fmt: skip
    np.testing.assert_allclose(joined.agreed, folds[-1].agreed)


def test_r2_shares_are_the_product_measure_written_out():
    rng = np.random.default_rng(0)
    y, a, b = rng.standard_normal((3, 30, 4))
    y -= y.mean(axis=0)
    shares = r2_shares([Sums.of(np.stack([a, b]), y)], (y**2).sum(axis=0))
    expected = (a * (2 * y - a - b)).sum(axis=0) / (y**2).sum(axis=0)
    np.testing.assert_allclose(shares[0], expected)


def test_layers_of_a_band_weigh_alike():
    parts, _ = bands()
    grams = [part @ part.T for part in parts]
    train = np.arange(40)
    made = combine(grams, [[0, 2], [1]], train)
    scaled = [part / np.sqrt(((part[train] - part[train].mean(axis=0)) ** 2).sum(axis=1).mean()) for part in parts]
    np.testing.assert_allclose(made[0], scaled[0] @ scaled[0].T + scaled[2] @ scaled[2].T)
    np.testing.assert_array_equal(made[1], grams[1])


def test_candidates_are_weights():
    weights = candidate_weights(4, 30, seed=0)
    assert weights.shape == (30, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_array_equal(weights[:5], np.vstack([np.full((1, 4), 0.25), np.eye(4)]))
    assert len(candidate_weights(4, 1, seed=0)) == 5
    assert len(candidate_weights(3, seed=0)) == 30
    assert len(candidate_weights(9, seed=0)) == 50


def test_targets_that_are_not_finite_are_nan():
    parts, y = bands(widths=(6,))
    y[3, 1] = np.nan
    predicted = BandedRidge().fit(parts[0], y).predict(parts[0])
    assert np.isnan(predicted[:, 1]).all()
    assert np.isfinite(np.delete(predicted, 1, axis=1)).all()


def test_constant_bands_and_targets():
    x, y = np.ones((20, 3)), np.full((20, 2), 4.0)
    np.testing.assert_allclose(BandedRidge(columns=[1, 2]).fit(x, y).predict(x), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": [3]}, "columns: expected 3 columns"),
        ({"penalties": [0.0]}, "penalties: expected positive"),
        ({"columns": [2, 4], "weights": [[1.0]]}, "weights: expected rows of 2"),
        ({"columns": [2, 4], "weights": [[0.0, 0.0]]}, "not all 0"),
    ],
)
def test_what_cannot_be_fitted(options, message):
    with pytest.raises(ValueError, match=message):
        BandedRidge(**options).fit(np.ones((10, 6)), np.ones((10, 2)))


def test_training_means_are_what_deviations_are_from():
    y = np.arange(12.0).reshape(6, 2)
    splits = kfold(6, 3, seed=0)
    folds = [Sums.of(np.zeros((1, len(test), 2)), y[test] - y[train].mean(axis=0)) for train, test in splits]
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(r2_shares(folds, spread)[0], r2(training_means(y, splits), y))
    assert np.isnan(pearsonr_shares(folds)).all()
