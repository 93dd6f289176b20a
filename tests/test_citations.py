"""``logs/CITATION.*`` of a finished run, and the sentences that its results say of themselves."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bidsdnn.analyses import ANALYSES
from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.bids.files import read_json, write_json
from bidsdnn.citations import write_citations
from bidsdnn.lookup import summary
from bidsdnn.methods.models import MODELS
from bidsdnn.methods.models.classifiers import DECODERS
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.patterns import Patterns
from bidsdnn.probes import PROBES
from bidsdnn.report.methods import find
from bidsdnn.report.prose import split
from bidsdnn.responses import ESTIMATORS
from bidsdnn.spaces import Volume

PRESENT = re.compile(r"\b(is|are|has|have|comes|counts|lies|does|do)\b")
PAST = re.compile(r"\b(was|were|had|came|lay|took|used|held|gave|\w+ed)\b")
TABLES = (ANALYSES, ESTIMATORS, MODELS, DECODERS, DISSIMILARITIES, SIMILARITIES, PROBES)


def faults(sentence: str) -> list[str]:
    """What keeps a sentence from standing in a methods section."""
    # What stands in brackets is no part of the sentence.
    bare = re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", sentence))
    return [
        *(["begins small"] if not re.match(r"[A-Z]|p\b|r\b|q\b", sentence) else []),
        *(["does not end"] if not sentence.endswith(".") else []),
        *(["is in the present"] if PRESENT.search(bare) else []),
        *(["has no verb in the past"] if not PAST.search(bare) else []),
    ]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: next(iter(table)))
def test_first_sentences_of_what_can_be_chosen_are_methods(table):
    found = {name: faults(summary(function)) for name, function in table.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_results_say_what_was_done_in_the_past_and_once(finished):
    for path in finished.out.rglob("*.json"):
        sentences = split(str(read_json(path).get("Methods", "")))
        assert len(set(sentences)) == len(sentences), f"{path.name} repeats itself"
        wrong = {sentence: faults(sentence) for sentence in sentences if faults(sentence)}
        assert wrong == {}, path.name


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """A tiny network and a tiny brain of 24 stimuli in six classes, and its trials in three runs."""
    rng = np.random.default_rng(0)
    ids = [f"s{number:02d}" for number in range(24)]
    layers = {name: rng.standard_normal((24, 20)) for name in ("one", "two")}
    space = Volume(np.ones((3, 3, 3), dtype=bool), np.diag([3.0, 3.0, 3.0, 1.0]))
    y = Patterns.of(layers["one"][:, :1] + rng.standard_normal((24, 27)), ids, space=space)
    labels = pd.DataFrame({"stimulus_id": ids, "value": [f"c{number % 4}" for number in range(24)]})
    runs = np.repeat(["run-1", "run-2", "run-3"], 24)
    trials = Patterns.of(rng.standard_normal((72, 27)), ids * 3, space=space)
    trials = replace(trials, items=trials.items.assign(run=runs, session=""))
    return {"x": Patterns.of(layers, ids, network="net"), "y": y, "targets": {"kind": labels}, "trials": trials}


@pytest.mark.parametrize(
    ("analysis", "options"),
    [
        ("encoding", {"bootstrap": 20, "hierarchy": ["brain"], "identification": True}),
        ("encoding", {"encoder": "banded-ridge", "bootstrap": 0}),
        ("encoding", {"encoder": "lasso", "bootstrap": 0, "voxelwise": False}),
        ("encoding", {"encoder": "ols", "region_encoder": "pls", "cv": "kfold:3", "bootstrap": 0}),
        ("decoding", {"targets": True, "cv": "kfold:3", "select": 5, "searchlight": True, "radius": 4.0}),
        ("rsa", {"weighted": True, "control": ["two"]}),
        ("rsa", {"metric": "crossnobis", "trials": True}),
        ("similarity", {}),
        ("searchlight", {"methods": ["rsa", "encoding"], "radius": 4.0, "cv": "kfold:3"}),
        ("variance-partition", {"spaces": "layer", "n_candidates": 3, "cv": "kfold:3"}),
    ],
)
def test_analyses_say_what_was_done_in_the_past(analysis, options, tables):
    asked = {key: tables[key] if value is True and key in tables else value for key, value in options.items()}
    if analysis != "similarity":
        asked["permutations"] = 19
    said = ANALYSES[analysis](tables["x"], tables["y"], **asked).sidecar
    sentences = split(said["Methods"])
    assert sentences and len(set(sentences)) == len(sentences)
    assert {sentence: faults(sentence) for sentence in sentences if faults(sentence)} == {}
    assert all(find(key) for key in said["References"])


def test_reports_print_no_sentence_twice(finished):
    for name in ("sub-01.html", "group.html"):
        page = (finished.out / name).read_text(encoding="utf-8")
        prose = re.findall(r'<p class="prose">(.*?)</p>', page, flags=re.S)
        sentences = [one for text in prose for one in split(text)]
        assert len(sentences) > 5 and len(set(sentences)) == len(sentences)
        assert "et al., 2011)" in page or name == "group.html"


def test_what_is_cited_is_what_was_run(finished):
    logs = finished.out / "logs"
    text, bib, tex = ((logs / f"CITATION.{ending}").read_text(encoding="utf-8") for ending in ("md", "bib", "tex"))
    entries = set(re.findall(r"^@\w+\{([^,]+),", bib, flags=re.M))
    cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", tex) for key in keys.split(",")}
    assert entries == cited
    assert {"bidsdnn", "lss", "encoding", "ridge", "rsa", "permutation", "fdr", "sign-flip", "pytorch"} <= entries
    assert not entries & {
        "lsa",
        "glmsingle",
        "lasso",
        "crossnobis",
        "searchlight",
        "resnet",
        "variance-partition",
    }
    assert text.startswith("# Methods\n\n**Networks.**") and "**Software.** The analysis was run with bidsdnn" in text
    assert "Regions were those of the atlas planted." in text
    for where in (
        "Benjamini and Hochberg's procedure (Benjamini & Hochberg, 1995).",
        "was estimated from participants' own p (Ince et al., 2021).",
        "Holm's step-down procedure (Holm, 1979).",
        "multidimensional scaling (Torgerson, 1952).",
        "of whole participants (Nichols & Holmes, 2002).",
    ):
        assert where in text, f"a work stands at the sentence that rests on it: {where}"


def test_a_run_without_rsa_does_not_cite_it(finished, tmp_path):
    """Of the same results those of other analyses alone."""
    for path in finished.out.rglob("*.json"):
        if "logs" not in path.parts and not re.search(r"rsa|relmat|people|desc-mds", path.name):
            write_json(tmp_path / path.relative_to(finished.out), read_json(path))
    write_json(
        tmp_path / "atlas-planted_description.json", {"ReferencesAndLinks": ["Planter P (2024). Planted_regions."]}
    )
    write_citations(Derivatives(tmp_path))
    bib = (tmp_path / "logs" / "CITATION.bib").read_text(encoding="utf-8")
    entries = set(re.findall(r"^@\w+\{([^,]+),", bib, flags=re.M))
    assert {"encoding", "ridge"} <= entries and not {key for key in entries if key.startswith("rsa") or key == "mds"}
    assert "Representational" not in (tmp_path / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert "Planted\\_regions" in bib, "an atlas is cited as its description says"
