"""Decoders against scikit-learn, the test against refitting one by one, and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance, ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest, f_classif, f_regression
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SkRidge
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from bidsdnn.methods.classification import accuracy, auc, balanced_accuracy, confusion
from bidsdnn.methods.decode import Features, choices, cross_decide, decode, score, selected
from bidsdnn.methods.models.classifiers import DECODERS, Discriminant, Logistic, Own, RidgeDecoder, SupportVectors
from bidsdnn.methods.predict import kfold
from bidsdnn.methods.scores import pooled_pearsonr

N, CLASSES = 45, 3


@pytest.fixture(params=[8, 70], ids=["narrow", "wide"])
def data(request):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N) % CLASSES)
    x = rng.standard_normal((N, request.param)) + 0.5 * np.eye(CLASSES, request.param)[y] + 3
    return x * rng.uniform(0.1, 5, request.param), y, kfold(N, 5, seed=1)


class Constant(EmpiricalCovariance):
    """Covariance of the rows, and a constant on its diagonal."""

    gamma = 0.0

    def fit(self, x, y=None):
        super().fit(x)
        self.covariance_ = self.covariance_ + self.gamma * np.eye(x.shape[1])
        return self


def scaled(x, train, test):
    """z-scored rows in the unit that penalties have."""
    scaler = StandardScaler().fit(x[train])
    rows, new = scaler.transform(x[train]), scaler.transform(x[test])
    rank = min(len(train) - 1, x.shape[1])
    unit = np.sqrt((rows**2).sum() / len(train) / rank)
    return rows / unit, new / unit


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.05, 1.0])
def test_logistic_is_scikit_learns(data, n_classes, C):
    x, y, splits = data
    y = np.minimum(y, n_classes - 1)
    found = cross_decide(Logistic(C, tol=1e-8), x, y[None], splits, n_classes=n_classes)[0]
    for train, test in splits:
        rows, new = scaled(x, train, test)
        reference = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(rows, y[train]).predict_proba(new)
        mine = np.exp(found[test])
        np.testing.assert_allclose(mine / mine.sum(axis=1, keepdims=True), reference, atol=1e-5)


@pytest.mark.parametrize("shrinkage", [0.2, 0.9, "auto"])
def test_discriminant_is_scikit_learns_with_that_covariance(data, shrinkage):
    x, y, splits = data
    found = cross_decide(Discriminant(shrinkage), x, y[None], splits, n_classes=CLASSES)[0]
    for train, test in splits:
        rows, new = scaled(x, train, test)
        a = shrinkage
        if a == "auto":
            left, scale, _ = np.linalg.svd(rows, full_matrices=False)
            rank = (scale > 1e-8).sum()
            a = min(ledoit_wolf_shrinkage(left[:, :rank] * scale[:rank], assume_centered=True), 1 - 1e-4)
        # Of S (1 - a) + a I, divided by 1 - a; the unit makes the mean variance 1.
        covariance = Constant()
        covariance.gamma = a / (1 - a)
        model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance).fit(rows, y[train])
        # Dividing the covariance multiplied all but the priors.
        log_prior = np.log(np.bincount(y[train]) / len(train))
        reference = (model.decision_function(new) - log_prior) / (1 - a) + log_prior
        difference = found[test] - reference
        np.testing.assert_allclose(difference, difference[:, :1] * np.ones(CLASSES), rtol=1e-6, atol=1e-6)


def test_support_vectors_are_scikit_learns(data):
    x, y, splits = data
    found = cross_decide(SupportVectors(0.3), x, y[None], splits, n_classes=CLASSES)[0]
    for train, test in splits:
        rows, new = scaled(x, train, test)
        model = SVC(kernel="linear", C=0.3, break_ties=True, decision_function_shape="ovr").fit(rows, y[train])
        np.testing.assert_allclose(found[test], model.decision_function(new), atol=2e-2)
        assert (choices(found[test]) == model.predict(new)).mean() > 0.85


def test_ridge_is_scikit_learns(data):
    x, _, splits = data
    y = np.random.default_rng(3).standard_normal((2, N))
    found = cross_decide(RidgeDecoder([0.5]), x, y, splits)
    for train, test in splits:
        rows, new = scaled(x, train, test)
        # The mean eigenvalue of X'X is the number of rows in this unit.
        reference = SkRidge(alpha=0.5 * len(train)).fit(rows, y[:, train].T).predict(new)
        np.testing.assert_allclose(found[:, test], reference.T, atol=1e-8)


def test_scores_are_scikit_learns(data):
    x, y, splits = data
    found = cross_decide(Discriminant(), x, y[None], splits, n_classes=CLASSES)
    said, counts = choices(found)[0], confusion(y, choices(found)[0], CLASSES)
    np.testing.assert_array_equal(counts, confusion_matrix(y, said))
    assert accuracy(counts) == pytest.approx((y == said).mean())
    assert balanced_accuracy(counts) == pytest.approx(balanced_accuracy_score(y, said))
    areas = [
        roc_auc_score(y[test] == one, found[0, test, one])
        for _, test in splits for one in range(CLASSES) if 0 < (y[test] == one).sum() < len(test)
    ]  # fmt: skip
    assert auc(y, found[0], splits) == pytest.approx(np.mean(areas))
    numbers = np.random.default_rng(0).standard_normal((4, N))
    guesses = cross_decide(RidgeDecoder(), x, numbers, splits)
    np.testing.assert_allclose(score(guesses, numbers, splits, 0), pooled_pearsonr(guesses.T, numbers.T, splits))


def test_numbers_of_noise_centre_on_zero_in_small_folds():
    rng, found = np.random.default_rng(0), []
    for seed in range(12):
        x, y = rng.standard_normal((24, 30)), rng.standard_normal(24)
        orders = np.array([rng.permutation(24) for _ in range(10)])
        found.append(decode(RidgeDecoder(), x, y, kfold(24, (10, 24)[seed % 2], seed=seed), orders=orders).null)
    # Predictions that are not put on one scale give -.16.
    assert abs(np.mean(found)) < 0.05
    x[:, 0] = 3 * y
    assert decode(RidgeDecoder(), x, y, kfold(24, 10, seed=0), orders=orders).score > 0.5


@pytest.mark.parametrize("name", ["logistic", "lda", "svm", "ridge"])
def test_every_relabelling_is_a_fit_of_its_own(data, name):
    x, y, splits = data
    orders = np.array([np.random.default_rng(k).permutation(N) for k in range(3)])
    classes = 0 if name == "ridge" else CLASSES
    done = decode(DECODERS[name](), x, y, splits, orders=orders, n_classes=classes)
    for order, null in zip(orders, done.null, strict=True):
        alone = decode(DECODERS[name](), x, y[order], splits, orders=orders[:1], n_classes=classes)
        assert alone.score == pytest.approx(null, abs=1e-9)


def test_selection_is_scikit_learns_within_each_fold(data):
    x, y, splits = data
    model = make_pipeline(SelectKBest(f_classif, k=5), StandardScaler(), LogisticRegression(C=1e-3))
    found = decode(Logistic(1e-3), x, y, splits, orders=y[None] * 0, features=Features(select=5), n_classes=3).decisions
    for train, _ in splits:
        np.testing.assert_array_equal(
            selected(x[train], y[None, train], 5, CLASSES)[0], model.fit(x[train], y[train])[0].get_support(True)
        )
    own = cross_decide(Own(model), x, y[None], splits, features=Features(standardize=False), n_classes=3)[0]
    assert (choices(found) == choices(own)).mean() > 0.9
    numbers = np.random.default_rng(1).standard_normal(N)
    np.testing.assert_array_equal(selected(x, numbers[None], 0.1, 0)[0], SelectKBest(
        f_regression, k=int(np.ceil(0.1 * x.shape[1]))).fit(x, numbers).get_support(True))  # fmt: skip


def test_selection_within_folds_does_not_leak():
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(12):
        x, y = rng.standard_normal((40, 500)), np.arange(40) % 2
        done = decode(Discriminant(), x, y, kfold(40, 5, seed=0), orders=y[None] * 0, features=Features(select=10),
                      n_classes=2)  # fmt: skip
        scores.append(done.score)
    assert abs(np.mean(scores) - 0.5) < 0.1


def test_components_are_those_of_the_training_rows(data):
    x, y, splits = data
    from sklearn.decomposition import PCA

    model = make_pipeline(StandardScaler(), PCA(4), LinearDiscriminantAnalysis())
    found = cross_decide(Discriminant(1e-6), x, y[None], splits, features=Features(components=4), n_classes=3)[0]
    own = cross_decide(Own(model), x, y[None], splits, features=Features(standardize=False), n_classes=3)[0]
    np.testing.assert_array_equal(choices(found), choices(own))


def test_own_regressor_and_predict_alone(data):
    x, y, splits = data

    class Nearest:
        def fit(self, x, y):
            self.means = np.array([x[y == k].mean(axis=0) for k in range(CLASSES)])
            return self

        def predict(self, x):
            return ((x[:, None] - self.means) ** 2).sum(axis=2).argmin(axis=1)

    found = cross_decide(Own(Nearest()), x, y[None], splits, n_classes=CLASSES)
    assert set(np.unique(found)) <= {-np.inf, 0.0, 1.0}
    assert Own(DecisionTreeRegressor()).kind == "numbers"
    assert cross_decide(Own(DecisionTreeRegressor(max_depth=2)), x, y[None] * 1.0, splits).shape == (1, N)


@pytest.mark.parametrize("name", ["logistic", "lda", "svm"])
def test_classes_with_a_planted_difference_are_found(name):
    rng = np.random.default_rng(5)
    y = np.arange(60) % 4
    x = rng.standard_normal((60, 30)) + 1.5 * rng.standard_normal((4, 30))[y]
    orders = np.array([rng.permutation(60) for _ in range(39)])
    done = decode(DECODERS[name](), x, y, kfold(60, 5, seed=0), orders=orders, n_classes=4)
    assert done.score > 0.8
    assert done.null.max() < 0.5
    assert done.auc > 0.9


def test_an_item_that_is_never_held_out_does_not_count(data):
    x, y, _ = data
    splits = [(np.arange(20), np.arange(20, 30))]
    done = decode(Discriminant(), x, y, splits, orders=np.arange(N)[None], n_classes=3)
    assert np.isnan(done.decisions[30:]).all()
    said = choices(done.decisions)
    assert done.score == pytest.approx(balanced_accuracy_score(y[20:30], said[20:30]))
    done = decode(RidgeDecoder(), x, x[:, 0], splits, orders=np.arange(N)[None])
    assert done.score > 0.3


def test_bad_input(data):
    x, y, splits = data
    with pytest.raises(ValueError, match="shrinkage: expected a number between 0 and 1"):
        cross_decide(Discriminant(1.0), x, y[None], splits, n_classes=3)
    with pytest.raises(ValueError, match="C: expected a positive"):
        cross_decide(Logistic(0), x, y[None], splits, n_classes=3)
    with pytest.raises(ValueError, match="x: expected finite"):
        cross_decide(Logistic(), x * np.nan, y[None], splits, n_classes=3)
    with pytest.raises(ValueError, match="x, labels"):
        cross_decide(Logistic(), x, y, splits, n_classes=3)
