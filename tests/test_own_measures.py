"""A distance or a comparison from a user's file stands where a name does, and results call it by its own name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.files import read_json, read_table, sidecar_path
from bidsdnn.cli import main
from bidsdnn.methods.arrangement import pairwise_similarity
from bidsdnn.methods.similarity import SIMILARITIES, label_permutation
from tests.conftest import ATLAS

pytestmark = pytest.mark.usefixtures("undrawn")

OWN = """
import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

def far(values):
    \"\"\"Stimuli differ as scipy says.\"\"\"
    return pdist(values, "correlation")

def alike(a, b):
    return np.corrcoef(rankdata(a), rankdata(b))[0, 1]

def spearman(a, b):
    return 0.0

def square(values):
    return np.zeros((len(values), len(values)))

def broken(a, b):
    raise RuntimeError("not today")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("shape", [(3, 2), (2, 3)])
def test_a_function_is_tested_as_the_row_that_it_equals(shape):
    rng = np.random.default_rng(0)
    models, brains = (rng.random((count, 21)) for count in shape)
    models[0, 2] = np.nan
    options = {"permutations": 40, "seed": 1, "return_null": True}
    expected = label_permutation(models, brains, comparison="spearman", **options)
    found = label_permutation(models, brains, comparison=SIMILARITIES["spearman"], **options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert np.isnan(found[0][0]).all() and np.isfinite(found[1][1:]).all()
    np.testing.assert_allclose(
        pairwise_similarity(brains, comparison=SIMILARITIES["pearson"]),
        pairwise_similarity(brains, comparison="pearson"), atol=1e-12,
    )  # fmt: skip


def test_similarities_above_one_are_kept():
    rng = np.random.default_rng(0)
    models, brains = rng.random((2, 21)), rng.random((1, 21))
    similarity, _ = label_permutation(models, brains, comparison=lambda a, b: 100 * float(a @ b), permutations=10)
    np.testing.assert_allclose(similarity, 100 * models @ brains.T)


def call(dataset, out, level, *more):
    options = [
        "--network", "demo", "--layer", "conv1", "conv3", "--atlas", str(dataset / ATLAS),
        "--permutations", "20", "--nprocs", "1", "--analysis", "rsa", "similarity",
    ]  # fmt: skip
    return main([str(dataset), str(out), level, *options, *more])


def test_results_are_those_of_the_rows_that_the_functions_equal(demo_dataset, tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ["--rdm-metric", "own.py:far", "--rdm-comparison", "own.py:alike", "pearson", "--iterate", "channel"]
    usual = ["--rdm-comparison", "spearman", "pearson", "--iterate", "channel"]
    for name, options in (("own", own), ("usual", usual)):
        for level in ("participant", "group"):
            assert call(demo_dataset, tmp_path / name, level, *options) == 0
    for desc, score in (("rsa", "similarity"), ("rsachannel", "similarity"), ("similarity", "similarity")):
        paths = [next((tmp_path / name).glob(f"sub-01/func/*_desc-{desc}_results.tsv")) for name in ("own", "usual")]
        mine, theirs = map(read_table, paths)
        renamed = mine.replace({"comparison": {"alike": "spearman"}, "metric": {"far": "correlation"}})
        renamed[score], theirs[score] = renamed[score].round(5), theirs[score].round(5)
        pd.testing.assert_frame_equal(renamed, theirs, atol=1e-3)
    keys = read_json(sidecar_path(next((tmp_path / "own").glob("sub-01/func/*_desc-rsa_results.tsv"))))
    assert keys["Methods"].count("Stimuli differ as scipy says.") == 1 and keys["Metric"] == "far"
    assert keys["Comparisons"]["alike"] == "alike, a function of the user's, was used."
    assert next((tmp_path / "own").glob("sub-01/func/*_stat-far_relmat.h5"))
    table = read_table(next((tmp_path / "own" / "group").glob("*model-demo*_desc-rsa_results.tsv")))
    assert set(table["comparison"]) == {"alike", "pearson"} and table["p"].notna().all()
    people = read_table(next((tmp_path / "own" / "group").glob("*_desc-people_results.tsv")))
    assert set(people["comparison"]) == {"alike", "pearson"}
    # Another function of the same name is another result.
    before = next((tmp_path / "own").glob("sub-01/func/*model-demo*_desc-rsa_results.tsv"))
    old = read_table(before)
    file.write_text(OWN.replace("[0, 1]", "[0, 1] / 2"))
    assert call(demo_dataset, tmp_path / "own", "participant", *own) == 0
    new = read_table(before)
    halved = new["comparison"] == "alike"
    np.testing.assert_allclose(new["similarity"][halved], old["similarity"][halved] / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rdm-metric", "{file}:square"], "gave shape (5, 5) for (5, 8); return n * (n - 1) / 2 distances"),
        (["--rdm-metric", "{file}:fra"], "has no 'fra'; did you mean far"),
        (["--rdm-metric", "none.py:far"], "none.py: file not found"),
        (["--rdm-comparison", "{file}:broken"], "failed on random numbers (RuntimeError: not today)"),
        (["--rdm-comparison", "{file}:spearman"], "spearman is one of bidsdnn's own; give the function another name"),
        (["--rdm-comparison", "{file}:far"], "--rdm-comparison"),
        (["--analysis", "searchlight", "--rdm-metric", "{file}:far"], "choose one of `bidsdnn --list dissimilarities`"),
        (["--analysis", "searchlight", "--rdm-comparison", "{file}:alike"], "`bidsdnn --list similarities`"),
        (["--rdm-comparison", "{file}:alike", "--config-file", "{toml}"], "cannot judge weighted layers"),
    ],
)
def test_functions_that_cannot_be_used(demo_dataset, tmp_path, file, capsys, more, message):
    (tmp_path / "c.toml").write_text("[parameters.rsa]\nweighted = true\n")
    more = [one.format(file=file, toml=tmp_path / "c.toml") for one in more]
    assert call(demo_dataset, tmp_path / "out", "participant", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
