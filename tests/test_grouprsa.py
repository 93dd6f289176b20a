"""RSA over participants: RDMs joined by stimulus, one family for all networks, each thing left out has its sentence."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from bidsdnn.activations import activations_path
from bidsdnn.bids.arrays import read_rdms, write_rdms
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, read_table, sidecar_path, write_json
from bidsdnn.grouplevel import group
from bidsdnn.methods.inference import fdr, sign_flip_familywise
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.rsa_bootstrap import bootstrap
from bidsdnn.methods.rsa_inference import against_ceiling, holm, noise_ceiling, pairwise
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.parallel import seed_for, workers

OPTIONS = {"permutations": 60, "seed": 3}
IDS = [f"s{i:02d}.png" for i in range(12)]
NETWORKS = {"one": ["a", "b"], "two": ["c"]}


class Study:
    """Participants whose RDMs follow the first layer, in tables and files as the participant level leaves them."""

    def __init__(self, root, *, people=5, metric="correlation", comparisons=("spearman", "cosine")):
        self.out, self.people, self.metric = Derivatives(root / "out"), [f"{i:02d}" for i in range(people)], metric
        rng = np.random.default_rng(0)
        self.features = {(n, layer): rng.standard_normal((12, 7)) for n, own in NETWORKS.items() for layer in own}
        self.models = {key: DISSIMILARITIES[metric](x) for key, x in self.features.items()}
        self.brains = {
            region: np.array([self.models["one", "a"] + rng.random(66) for _ in self.people]) for region in ("V1", "V2")
        }
        for network, layers in NETWORKS.items():
            self.write_network(network, layers, metric)
        self.write_people(comparisons)

    def write_network(self, network, layers, metric):
        path = self.out.root / "stimuli" / f"model-{network}_stat-{metric}_relmat.h5"
        order = np.arange(12)[::-1]
        square = {layer: squareform(self.models[network, layer])[np.ix_(order, order)] for layer in layers}
        write_rdms(path, {k: squareform(v, checks=False) for k, v in square.items()}, [IDS[i] for i in order])

    def write_people(self, comparisons, entities=None):
        for number, label in enumerate(self.people):
            where = {"sub": label, "task": "t", "atlas": "x", **(entities or {})}
            for network, layers in NETWORKS.items():
                rows = [
                    [network, layer, region, 9, self.metric, comparison,
                     SIMILARITIES[comparison](self.models[network, layer], rdms[number]), 0.5]
                    for comparison in comparisons for layer in layers for region, rdms in self.brains.items()
                ]  # fmt: skip
                names = ["network", "layer", "region", "n_voxels", "metric", "comparison", "similarity", "p"]
                path = self.out.path("results", ".tsv", **where, model=network, desc="rsa")
                self.out.write_table(path, pd.DataFrame(rows, columns=names), {"Layers": layers})
            self.write_rdms(label, number, np.roll(np.arange(12), number), **where)

    def write_rdms(self, label, number, order, ids=None, **where):
        path = self.out.path("relmat", ".h5", **where, stat=self.metric)
        rdms = {
            region: squareform(squareform(rdms[number])[np.ix_(order, order)], checks=False)
            for region, rdms in self.brains.items()
        }
        write_rdms(path, rdms, ids or [IDS[i] for i in order])

    def path_of(self, label):
        return self.out.path("relmat", ".h5", sub=label, task="t", atlas="x", stat=self.metric)

    def run(self, **options):
        _, omitted = group(self.out, self.people, **{**OPTIONS, **options})
        folder = self.out.root / "group"
        found = [read_table(folder / f"task-t_atlas-x_model-{network}_desc-rsa_results.tsv") for network in NETWORKS]
        return pd.concat(found, ignore_index=True), folder / "task-t_atlas-x_desc-rsapairs_results.tsv", omitted


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_one_family_of_all_networks(study):
    table, pairs_path, omitted = study.run()
    assert omitted == []
    rdms, keys = study.brains["V2"], [("one", "a"), ("one", "b"), ("two", "c")]
    models = np.array([study.models[key] for key in keys])
    own = table[(table["region"] == "V2") & (table["comparison"] == "spearman")]
    assert list(zip(own["network"], own["layer"], strict=True)) == keys
    samples = bootstrap(models, rdms, samples=60, seed=seed_for(3, "bootstrap"))
    np.testing.assert_allclose(own["similarity"], samples.similarity, atol=1e-8)
    np.testing.assert_allclose(own["se_both"], np.sqrt(samples.variance), rtol=1e-6)
    ceiling = against_ceiling(samples)
    np.testing.assert_allclose(own[["p_ceiling", "p_ceiling_fwe"]].T, [ceiling.p, ceiling.holm], rtol=1e-6)
    np.testing.assert_allclose(own["ceiling_lower"], noise_ceiling(rdms)[0], rtol=1e-6)
    alone = bootstrap(models, rdms, samples=60, seed=seed_for(3, "bootstrap"), over="stimuli")
    np.testing.assert_allclose(own["se_stimuli"], np.sqrt(alone.variance), rtol=1e-6)
    assert (own["ci_both_lower"] < own["similarity"]).all() and (own["similarity"] < own["ci_both_upper"]).all()
    scores = np.array([[SIMILARITIES["spearman"](m, rdm) for m in models] for rdm in rdms])
    np.testing.assert_allclose(own["p_fwe"], sign_flip_familywise(np.arctanh(scores)))
    spearman = table[table["comparison"] == "spearman"]
    np.testing.assert_allclose(spearman["q"], fdr(spearman["p"]))

    pairs = read_table(pairs_path)
    assert len(pairs) == 2 * 2 * 3
    mine = pairs[(pairs["region"] == "V2") & (pairs["comparison"] == "spearman")]
    assert mine[["network", "layer", "other_network", "other_layer"]].to_numpy().tolist() == [
        ["one", "a", "one", "b"], ["one", "a", "two", "c"], ["one", "b", "two", "c"],
    ]  # fmt: skip
    family = pairwise(samples)
    upper = np.triu_indices(3, 1)
    np.testing.assert_allclose(mine["difference"], family.difference[upper], rtol=1e-6)
    np.testing.assert_allclose(mine["p_fwe"], holm(family.p[upper]), rtol=1e-6)
    assert mine["p"].iloc[0] < 0.05 and mine["difference"].iloc[0] > 0


def test_all_layers_weighted_together_belong_to_no_family(study):
    without, _, _ = study.run()
    for label in study.people:
        path = study.out.path("results", ".tsv", sub=label, task="t", atlas="x", model="one", desc="rsa")
        rows = read_table(path)
        together = rows[rows["layer"] == "a"].assign(layer="weighted", similarity=0.9 - 0.01 * int(label))
        study.out.write_table(path, pd.concat([rows, together]), {"Layers": ["a", "b", "weighted"]})
    table, _, omitted = study.run()
    own = table["layer"] == "weighted"
    assert own.sum() == 4 and table.loc[own, ["p_fwe", "q"]].isna().all(axis=None) and not omitted
    assert (table.loc[own & (table["comparison"] == "spearman"), "p"] == 1 / 32).all()
    pd.testing.assert_frame_equal(table[~own].reset_index(drop=True), without)


def test_what_noise_lifts_is_tested_against_neither_zero_nor_the_ceiling(study):
    table, _, _ = study.run()
    cosine, spearman = (table[table["comparison"] == name] for name in ("cosine", "spearman"))
    null = ["t", "p", "p_fwe", "q", "p_zero", "p_zero_fwe", "p_ceiling"]
    assert cosine[null].isna().all(axis=None) and spearman[null].notna().all(axis=None)
    assert cosine[["se_both", "ci_both_lower", "ceiling_lower"]].notna().all(axis=None)


def test_columns_are_described_and_the_mean_rdms_are_there(study):
    table, pairs_path, _ = study.run()
    sidecar = read_json(sidecar_path(study.out.root / "group" / "task-t_atlas-x_model-one_desc-rsa_results.tsv"))
    undescribed = set(table) - set(sidecar) - {"network", "layer", "region", "n_voxels", "metric", "comparison",
                                               "n_participants"}  # fmt: skip
    assert not undescribed
    assert sidecar["SmallestAttainableP"] == 1 / 32 and sidecar["BootstrapSamples"] == 60
    assert "t" in read_json(sidecar_path(pairs_path))
    ids, mean = read_rdms(study.out.root / "group" / "task-t_atlas-x_stat-correlation_relmat.h5")
    assert ids == IDS
    np.testing.assert_allclose(mean["V1"], study.brains["V1"].mean(axis=0))


def test_a_second_run_writes_nothing_and_workers_change_nothing(study, tmp_path):
    study.run()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (study.out.root / "group").iterdir()}
    study.run()
    assert {path: path.stat().st_mtime_ns for path in before} == {path: old for path, (old, _) in before.items()}
    for path in before:
        path.unlink()
    with workers(2) as map:
        study.run(map=map)
    assert all(path.read_bytes() == old for path, (_, old) in before.items() if path.suffix != ".h5")


def test_other_metrics_come_from_the_activations(tmp_path):
    study = Study(tmp_path, metric="euclidean", comparisons=("kendall_tau_a", "whitened_cosine"))
    for network, layers in NETWORKS.items():
        (study.out.root / "stimuli" / f"model-{network}_stat-euclidean_relmat.h5").unlink()
        path = activations_path(study.out, network)
        with h5py.File(path, "w") as file:
            file["stim_id"] = np.array(IDS[::-1], dtype=object)
            for layer in layers:
                file[layer] = study.features[network, layer][::-1]
        write_json(sidecar_path(path), {"Layers": layers})
    table, pairs_path, omitted = study.run(permutations=20)
    assert omitted == [] and len(read_table(pairs_path)) == 12
    assert table["se_both"].notna().all()
    assert table["p_zero"].notna().tolist() == (table["comparison"] == "kendall_tau_a").tolist()


@pytest.mark.parametrize(
    ("spoil", "sentence", "ceilings"),
    [
        (lambda s: s.path_of("02").unlink(), "sub-02 has no RDM file", False),
        (lambda s: s.write_rdms("02", 2, np.arange(12), [*IDS[:-1], "x.png"], sub="02", task="t", atlas="x"),
         "sub-02 saw other stimuli than sub-00", False),
        (lambda s: (s.out.root / "stimuli" / "model-two_stat-correlation_relmat.h5").unlink(),
         "two: no RDM on disk of c; the bootstrap was left out", True),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(study, spoil, sentence, ceilings):
    spoil(study)
    table, _, omitted = study.run()
    assert len(omitted) == 1 and sentence in omitted[0]
    assert table["ceiling_lower"].notna().all() == ceilings
    assert table["se_both"].notna().any() == ceilings
    assert table.loc[table["comparison"] == "spearman", "p"].notna().all()


def test_rdms_that_do_not_belong_to_the_tables_are_refused(study):
    study.models["one", "b"] = pdist(np.random.default_rng(9).standard_normal((12, 3)))
    study.write_network("one", NETWORKS["one"], "correlation")
    table, pairs_path, omitted = study.run()
    assert all("do not give the similarities of the tables" in sentence for sentence in omitted) and omitted
    assert table["se_both"].isna().all() and not pairs_path.exists()


def test_gaps_and_constant_layers_cost_only_themselves(study):
    study.brains["V1"][1, 4] = np.nan
    study.models["one", "b"] = np.ones(66)
    study.write_network("one", NETWORKS["one"], "correlation")
    study.write_people(("spearman",))
    table, pairs_path, omitted = study.run()
    assert any("V1: a participant's RDM has gaps" in sentence for sentence in omitted)
    judged = table[table["se_both"].notna()]
    assert set(zip(judged["region"], judged["layer"], strict=True)) == {("V2", "a"), ("V2", "c")}
    assert len(read_table(pairs_path)) == 1


def test_too_many_stimuli_leave_the_bootstrap_out(study, monkeypatch):
    monkeypatch.setattr("bidsdnn.grouprsa.MOST_STIMULI", 10)
    table, _, omitted = study.run()
    assert "12 stimuli are more than 10" in omitted[0]
    assert table["se_both"].isna().all() and table["ceiling_lower"].notna().all()
