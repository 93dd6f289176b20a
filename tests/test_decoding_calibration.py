"""Rates of decoding's p on noise, each simulation a whole cross-validated test: long, under ``make slow``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.stats import kstest

from bidsdnn.decoding.folds import folds_of
from bidsdnn.decoding.table import Source, Work, score_rows
from bidsdnn.decoding.targets import Target
from bidsdnn.folding import folding
from bidsdnn.methods.decode import Features
from bidsdnn.methods.identification import identification_permutation
from bidsdnn.methods.models.classifiers import DECODERS
from bidsdnn.methods.predict import prediction_operator
from bidsdnn.methods.searchlight_decoding import searchlight_decoding
from bidsdnn.parallel import serial
from bidsdnn.patterns import Group, Patterns

SIMULATIONS, PERMUTATIONS = 1000, 39
REGIONS = [Source({"region": str(k)}, np.arange(8 * k, 8 * k + 8)) for k in range(4)]


def simulated(seed, design, decoder, **features):
    """Least p and least family-wise p over regions without information, and the first region's p and score."""
    rng = np.random.default_rng(seed)
    if design == "runs":
        items = pd.DataFrame({"stimulus_id": list("abc") * 6, "run": np.repeat([f"r{k}" for k in range(6)], 3)})
        labels, bearer, cv = np.tile(np.arange(3), 6), "identity", "leave-one-run-out"
        # What the items of a run share must not count as information.
        shift = np.repeat(rng.standard_normal((6, 32)), 3, axis=0)
    else:
        items = pd.DataFrame({"stimulus_id": [f"s{k}" for k in range(24)]})
        labels, bearer, cv, shift = (rng.permutation(24) < 9).astype(int), "stimulus", "kfold:4", 0
    if decoder == "ridge":
        labels = rng.standard_normal(len(items))
    values = rng.standard_normal((len(items), 32)) + shift
    classes = () if decoder == "ridge" else tuple("xyz"[: labels.max() + 1])
    target = Target("t", Patterns(items, (Group("brain", values),)), labels, classes, bearer)
    folded = folds_of(target, cv=cv, parts=None, permutations=PERMUTATIONS, seed=seed)
    # With selection each relabelling is a fit of its own: one region, and no shrinkage to be estimated.
    regions, more = (REGIONS[:1], {"shrinkage": 0.5}) if features else (REGIONS, {})
    work = Work(DECODERS[decoder](**more), values, labels, folded, Features(**features), len(classes))
    rows, _, _ = score_rows(target, decoder, regions, serial(work, regions), folded)
    score = rows[0]["balanced_accuracy"] - 1 / len(classes) if classes else rows[0]["pearsonr"]
    return rows[0]["p"], min(row["p_fwe"] for row in rows), score


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "decoder", "features"),
    [
        ("stimuli", "lda", {}),
        ("stimuli", "lda", {"select": 3}),
        ("stimuli", "ridge", {}),
        ("runs", "lda", {}),
        ("runs", "logistic", {}),
    ],
)
def test_rates_on_noise(design, decoder, features):
    found = np.array([simulated(seed, design, decoder, **features) for seed in range(SIMULATIONS)])
    p, familywise, score = found.T
    continuous = decoder == "ridge"
    # Accuracies tie: their rates may be lower than asked, never higher.
    for one in (p, familywise):
        rate = (one <= 0.05).mean()
        assert rate <= 0.07
        assert rate >= (0.03 if continuous else 0.005)
    if continuous:
        # Of 39 relabellings p is one of 40 steps, each as likely.
        assert kstest(p - np.random.default_rng(0).uniform(0, 1 / 40, len(p)), "uniform").pvalue > 0.01
    assert abs(score.mean()) < 3 * score.std() / np.sqrt(len(score)) + 0.02


@pytest.mark.slow
def test_rates_of_identification_and_searchlights():
    found = []
    near = csr_array(np.abs(np.subtract.outer(np.arange(12), np.arange(12))) <= 2)
    items = pd.DataFrame({"stimulus_id": [f"s{k}" for k in range(20)]})
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 12))
        folded = folding(items, permutations=PERMUTATIONS, seed=seed, cv="kfold:4")
        p = identification_permutation(prediction_operator(x, folded.splits), y, folded.splits, folded.orders)
        told = searchlight_decoding(
            y, near, rng.permutation(20) % 2, folded.splits, n_classes=2, orders=folded.orders
        )  # fmt: skip
        found.append((p[1], told.p[0], told.p_familywise.min()))
    rates = (np.array(found) <= 0.05).mean(axis=0)
    assert (rates <= 0.07).all()
    assert (rates >= [0.03, 0.005, 0.005]).all()
