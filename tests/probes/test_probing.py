"""What layers hold: labels against scikit-learn fold by fold, and planted groups, classes and dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bidsdnn.decoding.folds import folds_of
from bidsdnn.decoding.targets import understood
from bidsdnn.errors import ConfigError, DataError
from bidsdnn.networks.zoo import build
from bidsdnn.patterns import Group, Patterns
from bidsdnn.probes.clusters import clustered_layer
from bidsdnn.probes.probing import probe
from bidsdnn.stimuli import Stimuli

N, SEED = 40, 5
IDS = [f"{number:02d}.png" for number in range(N)]
ALIVE = np.arange(N) % 2


@pytest.fixture(scope="module")
def layers() -> Patterns:
    """An early layer that knows nothing, a late one of 4 channels at 6 positions whose second tells the classes."""
    rng = np.random.default_rng(0)
    early = rng.normal(size=(N, 6)) + 2
    late = np.maximum(rng.normal(size=(N, 4, 2, 3)) + 1, 0)
    late[:, 1] += 1.5 * ALIVE[:, None, None]
    groups = (Group("early", early, "net"), Group("late", late.reshape(N, -1), "net", (4, 2, 3), 0))
    return Patterns(pd.DataFrame({"stimulus_id": IDS}), groups)


@pytest.fixture(scope="module")
def given(layers):
    stimuli = Stimuli(
        pd.DataFrame({"stimulus_id": IDS, "filename": IDS, "modality": "image", "sha256": "x"}), Path("nowhere")
    )
    return {
        "network": build("demo", weights="none", seed=0, alias="net", given=None), "stimuli": stimuli,
        "layers": ("early", "late"), "activations": lambda names: layers, "seed": SEED, "permutations": 99,
    }  # fmt: skip


def labels(values) -> pd.DataFrame:
    return pd.DataFrame({"stimulus_id": IDS, "value": [str(value) for value in values]})


@pytest.fixture(scope="module")
def found(given):
    targets = {"animacy": labels(ALIVE), "size": labels(np.round(np.arange(N) * 0.05 + 6 * ALIVE, 2))}
    network, stimuli = given["network"], given["stimuli"]
    rest = {key: value for key, value in given.items() if key not in ("network", "stimuli")}
    return probe(network, stimuli, targets=targets, cv="kfold:5", clusters=3, **rest)


def test_labels_are_told_as_scikit_learn_tells_them(found, layers):
    target = understood("animacy", labels(ALIVE), Patterns.of(np.zeros((N, 1)), IDS), None, numeric=False, by_run=False)
    folded = folds_of(target, cv="kfold:5", parts=None, permutations=9, seed=SEED)
    table = found.tables["probe"].query("target == 'animacy'").set_index("layer")
    for group in layers.groups:
        predicted = np.empty(N, dtype=int)
        for train, test in folded.splits:
            model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
            predicted[test] = model.fit(group.values[train], ALIVE[train]).predict(group.values[test])
        assert table.loc[group.name, "balanced_accuracy"] == pytest.approx(balanced_accuracy_score(ALIVE, predicted))
    assert table.loc["late", "p_fwe"] == pytest.approx(0.01)
    assert table.loc["early", "p"] > 0.05
    assert (table["p_fwe"] >= table["p"]).all()
    numbers = found.tables["probe"].query("target == 'size'").set_index("layer")
    assert numbers["decoder"].tolist() == ["ridge"] * 2
    assert numbers.loc["late", "pearsonr"] > numbers.loc["early", "pearsonr"]


def test_a_column_says_what_is_held_out(given, layers):
    parts = labels(["train"] * 28 + ["test"] * 12)
    table = probe(**given, targets={"animacy": labels(ALIVE)}, cv="column:part", parts=parts).tables["probe"]
    late = layers.groups[1].values
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(late[:28], ALIVE[:28])
    expected = balanced_accuracy_score(ALIVE[28:], model.predict(late[28:]))
    assert table.set_index("layer").loc["late", "balanced_accuracy"] == pytest.approx(expected)


def test_channels_are_tuned_to_what_was_planted(found, layers):
    table = found.tables["probeunits"].query("layer == 'late' and target == 'animacy'").set_index("channel")
    assert table["eta2"].idxmax() == table["dprime"].abs().idxmax() == 1
    assert table.loc[1, "preferred"] == "1"
    profile = layers.groups[1].values.reshape(N, 4, 6).mean(2)
    one, other = profile[ALIVE == 1, 1].mean(), profile[ALIVE == 0, 1].mean()
    assert table.loc[1, "class_selectivity"] == pytest.approx((one - other) / (one + other))
    np.testing.assert_allclose(found.numbers["profiles/late"], profile, rtol=1e-6)
    np.testing.assert_allclose(found.numbers["tuning/animacy/late"][:, 1], [other, one], rtol=1e-6)
    sized = found.tables["probeunits"].query("layer == 'late' and target == 'size'").set_index("channel")
    expected = np.corrcoef(profile[:, 2], np.arange(N) * 0.05 + 6 * ALIVE)[0, 1]
    assert sized.loc[2, "pearsonr"] == pytest.approx(expected)


def test_layers_have_their_dimensions_and_sparseness(found, layers):
    table = found.tables["probelayers"].set_index("layer")
    for group in layers.groups:
        variances = PCA().fit(group.values).explained_variance_
        assert table.loc[group.name, "participation_ratio"] == pytest.approx(
            variances.sum() ** 2 / (variances**2).sum()
        )
        shares = np.cumsum(variances) / variances.sum()
        assert table.loc[group.name, "n_components_80"] == int((shares < 0.8).sum()) + 1
        positive = np.maximum(group.values, 0)
        n, p = positive.shape
        a = positive.mean(0) ** 2 / (positive**2).mean(0)
        assert table.loc[group.name, "lifetime_sparseness"] == pytest.approx(((1 - a) / (1 - 1 / n)).mean())
        a = positive.mean(1) ** 2 / (positive**2).mean(1)
        assert table.loc[group.name, "population_sparseness"] == pytest.approx(((1 - a) / (1 - 1 / p)).mean())


@pytest.mark.parametrize("clustering", ["hierarchical", "kmeans"])
def test_planted_groups_are_found_and_lie_together(clustering):
    rng = np.random.default_rng(1)
    of_stimuli, of_channels = rng.permutation(np.arange(30) % 3), rng.permutation(np.arange(24) % 4)
    centres = rng.normal(size=(3, 4))
    values = 5 * centres[np.ix_(of_stimuli, of_channels)] + 0.1 * rng.normal(size=(30, 24))
    one = clustered_layer(Group("layer", values, "net"), clustering=clustering, clusters=3, seed=0)
    assert adjusted_rand_score(of_stimuli, one.stimulus_clusters) == 1
    ordered = one.stimulus_clusters[np.argsort(one.stimulus_places)]
    assert ordered.tolist() == sorted(ordered.tolist())
    assert sorted(one.channel_places) == list(range(1, 25))
    assert one.drawn().dtype == np.uint8


def test_channels_are_found_where_they_are_last(layers):
    group = layers.groups[1]
    turned = np.moveaxis(group.values.reshape(N, 4, 2, 3), 1, -1).reshape(N, -1)
    last = Group("late", turned, "net", (2, 3, 4), 2)
    one, other = (clustered_layer(g, clustering="hierarchical", clusters=2, seed=0) for g in (group, last))
    np.testing.assert_allclose(one.profiles, other.profiles)


def test_layers_that_do_not_vary_have_no_numbers_and_no_error():
    one = clustered_layer(Group("dead", np.zeros((5, 4)), "net"), clustering="hierarchical", clusters=2, seed=0)
    assert np.isnan(one.layer["participation_ratio"])
    assert one.layer["silent"] == 1
    assert one.layer["n_components_80"] == 0


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"targets": {"name": labels(IDS)}}, DataError, "--target name: each of its 40 values is one stimulus'"),
        ({"targets": {"same": labels([1] * N)}}, DataError, "--target same: all 40 items are '1'"),
        ({"clustering": "tree"}, ConfigError, "parameters.probe.clustering = 'tree'"),
        ({"cv": "leave-one-run-out"}, ConfigError, "--cv leave-one-run-out: a layer has one pattern a stimulus"),
        ({"clusters": 0}, ConfigError, "parameters.probe.clusters = 0"),
        ({"targets": {"few": labels([0, 0, *[1] * 38])}}, DataError, "class '0' has 2 stimuli, fewer than the 10"),
    ],
)
def test_what_cannot_be_probed_is_refused(given, more, error, said):
    with pytest.raises(error, match=said):
        probe(**given, **more)
