"""The documentation: generated pages are up to date, and its examples run."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from bidsdnn.activations import build_networks
from bidsdnn.analyses import ANALYSES
from bidsdnn.bids.confounds import STRATEGIES
from bidsdnn.bids.events import edit_events
from bidsdnn.bids.files import read_table
from bidsdnn.cli import main
from bidsdnn.config import load_toml, resolve_config
from bidsdnn.extraction import reduction_of
from bidsdnn.methods.models import MODELS
from bidsdnn.methods.models.classifiers import DECODERS
from bidsdnn.methods.rdm import DISSIMILARITIES
from bidsdnn.methods.responses import timeseries as one_timeseries
from bidsdnn.methods.similarity import SIMILARITIES
from bidsdnn.networks.controls import MODALITIES
from bidsdnn.networks.zoo import FILES, LIBRARIES, build
from bidsdnn.probes import PROBES
from bidsdnn.responses import ESTIMATORS

ROOT = Path(__file__).parents[1]


def test_the_command_line_page_is_what_the_parser_says():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]
    assert (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8") == page()


def test_links_of_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_shows_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_the_examples_of_extending_run(finished, tmp_path, monkeypatch, undrawn):
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S):
        (tmp_path / name).write_text(code)
    (tmp_path / "c.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    network = ["--network", "mine=my_net.py:build@none", "--layer", "1", "3"]
    assert main([str(finished.bids), str(out), "dnn", *network]) == 0
    assert (out / "stimuli" / "model-mine_activations.h5").exists()
    options = ["--analysis", "my_analysis.py:mean_response", "--config-file", "c.toml", "--participant-label", "01"]
    assert main([str(finished.bids), str(out), "participant", "--network", "none", "--run-label", "1", *options]) == 0
    assert read_table(next(out.glob("sub-01/func/*desc-meanresponse_results.tsv")))["region"].tolist() == ["brain"]


def test_the_events_table_of_the_responses_page_is_understood(tmp_path):
    text = (ROOT / "docs" / "responses.md").read_text(encoding="utf-8")
    (tmp_path / "c.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    needed = {"bids_dir": "in", "out_dir": "out", "analysis_level": "participant"}
    edits = resolve_config({**load_toml(tmp_path / "c.toml"), **needed}).events
    table = pd.DataFrame(
        {"trial_type": ["face", "hse", "cat", "dog"], "gender": ["male", None, "f", "m"]}, dtype=object
    )
    found = edit_events({Path("e.tsv"): table}, edits)[Path("e.tsv")]
    assert found["trial_type"].tolist() == ["face_male", "house", "animal", "animal"]


def test_every_estimator_and_strategy_is_on_the_responses_page():
    text = (ROOT / "docs" / "responses.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in ESTIMATORS)
    stems = {name.partition("-")[0] for name in STRATEGIES}
    assert all(f"`{stem}`" in text for stem in stems)


def test_the_examples_of_the_networks_page_run(tmp_path):
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    (tmp_path / "c.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    needed = {"bids_dir": "in", "out_dir": "out", "analysis_level": "dnn", "network": ["mine=demo"]}
    config = resolve_config({**load_toml(tmp_path / "c.toml"), **needed})
    [(network, _)] = build_networks(config)
    assert network.preprocess(Image.new("RGB", (90, 90), "white")).unique().tolist() == [2.0]
    name, code = re.search(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S).groups()
    (tmp_path / name).write_text(code)
    ear = build(f"{tmp_path / name}:build", seed=1)
    assert (ear.modality, ear.shapes(["3"])["3"][1]) == ("audio", (8, 10))


def test_every_kind_of_network_is_on_the_networks_page():
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    assert all(f"`{prefix}:" in text for prefix in LIBRARIES)
    assert all(f"`model{suffix}" in text for suffix in FILES if suffix != ".pb")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert all(f"bidsdnn[{extra}]`" in text for extra in extras if extra != "test")


def test_the_mask_of_the_activations_page_is_understood(tmp_path):
    text = (ROOT / "docs" / "activations.md").read_text(encoding="utf-8")
    (tmp_path / "c.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    needed = {"bids_dir": "in", "out_dir": "out", "analysis_level": "dnn", "weights": "none"}
    config = resolve_config({**load_toml(tmp_path / "c.toml"), **needed})
    ((network, layers),) = build_networks(config)
    assert layers == list(config.layer)
    reduction = reduction_of(config, 1, network=network)
    shapes = [reduction(layer, torch.ones(1, *shape)).shape[1:] for layer, (_, shape) in network.shapes(layers).items()]
    assert shapes == [(3,), (1,), (3,)]


def test_the_examples_of_the_decoding_page_run(finished, tmp_path, undrawn):
    text = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    command = re.search(r"```bash\n(.*?)```", text, flags=re.S)[1].split()
    out = tmp_path / "out"
    options = ["--atlas", finished.options[3], "--nprocs", "1", "--participant-label", "01", "--permutations", "19"]
    assert main([str(finished.bids), str(out), *command[3:], *options]) == 0
    folder = out / "sub-01" / "func"
    regions = read_table(next(folder.glob("*atlas*_desc-decoding_results.tsv"))).set_index("region")
    assert regions["p_fwe"].min() <= 0.05
    layers = read_table(next(folder.glob("*model-demo*_desc-decoding_results.tsv")))
    assert layers["balanced_accuracy"].max() > layers["chance"].iloc[0]
    assert "what was taken for what" in (out / "sub-01.html").read_text(encoding="utf-8")
    (tmp_path / "c.toml").write_text(re.search(r"```toml\n(.*?)```", text, flags=re.S)[1])
    again = [*options[:-2], "--network", "none", "--config-file", str(tmp_path / "c.toml")]
    assert main([str(finished.bids), str(out), "participant", *again]) == 0
    assert list(folder.glob("*_stat-pattern_desc-decoding+category_statmap.nii.gz"))
    assert list(folder.glob("*_stat-pfwe_desc-searchlightdecoding+category_statmap.nii.gz"))
    assert read_table(next(folder.glob("*_desc-searchlightdecoding_results.tsv")))["peak"].max() > 1 / 6


@pytest.mark.parametrize("page", ["images", "video", "audio"])
def test_the_examples_of_the_modalities_run(page, tmp_path, monkeypatch):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert blocks
    exec(compile("\n".join(blocks), f"{page}.md", "exec"), {})


def test_every_feature_is_on_a_page_of_its_modality():
    pages = {"image": "images", "video": "video", "audio": "audio"}
    for name, kinds in MODALITIES.items():
        texts = [(ROOT / "docs" / f"{pages[kind]}.md").read_text(encoding="utf-8") for kind in kinds]
        assert any(re.search(rf"\b{name}\b", text) for text in texts), name


# The series of the command line are those of several runs; the methods have one run's.
TABLES = (
    ANALYSES, {**ESTIMATORS, "timeseries": one_timeseries}, MODELS, DECODERS, DISSIMILARITIES, SIMILARITIES,
    PROBES,
)  # fmt: skip


@pytest.fixture(scope="module")
def python_page() -> str:
    return (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_of_the_python_page_run(python_page, finished, tmp_path, monkeypatch, capsys):
    (tmp_path / "derivatives").mkdir()
    (tmp_path / "derivatives" / "bidsdnn").symlink_to(finished.out)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", python_page, flags=re.S)
    found: dict[str, Any] = {}
    exec(compile("\n".join(blocks), "python.md", "exec"), found)
    assert found["result"].tables["encoding"]["p_fwe"].min() <= 0.05
    assert found["image"].shape[3] == 3 and "Ridge regression was fitted" in capsys.readouterr().out


@pytest.mark.parametrize("table", TABLES, ids=lambda table: next(iter(table)))
def test_every_row_of_a_table_has_its_python_call(table, python_page):
    """The call that the page names is the row itself, and it can be called as the page does."""
    for name, function in table.items():
        rows = re.findall(rf"^\| `{re.escape(name)}` \| (.*) \|$", python_page, flags=re.M)
        calls = [_called(text) for row in rows for text in re.findall(r"`(bidsdnn\.[\w.]+\(.*?\))`", row)]
        assert any(one is function for one, _, _ in calls), name
        for one, positional, keywords in calls:
            inspect.signature(one).bind(*range(positional), **dict.fromkeys(keywords))


def test_every_call_of_the_python_page_can_be_made(python_page):
    calls = re.findall(r"`(bidsdnn\.[\w.]+\(.*?\))`", python_page)
    assert len(calls) > 50
    for text in calls:
        one, positional, keywords = _called(text)
        inspect.signature(one).bind(*range(positional), **dict.fromkeys(keywords))


def _called(text: str) -> tuple[Any, int, list[str]]:
    """The object that a call names, how many arguments it is given, and the keywords."""
    call = ast.parse(text, mode="eval").body
    module, _, name = ast.unparse(call.func).rpartition(".")
    return getattr(importlib.import_module(module), name), len(call.args), [word.arg for word in call.keywords]


API = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))
THINGS = [
    thing
    for modules in [*API["PAGES"].values(), ["methods"]]
    for module in modules
    for thing in API["things"](module)
]  # fmt: skip


def test_the_api_pages_are_what_the_docstrings_say():
    made = API["pages"]()
    assert {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").iterdir()} == made
    assert len(THINGS) > 500


def test_docstrings_name_the_arguments_that_there_are_and_what_is_returned():
    wrong = []
    for thing in THINGS:
        parts = API["sections"](thing.doc)
        if "Parameters" not in parts:
            continue
        said = [
            name.strip().lstrip("*") for names, _, _ in API["entries"](parts["Parameters"]) for name in names.split(",")
        ]
        # A class without arguments of its own takes those of its base.
        if thing.names and said != thing.names:
            wrong.append(f"{thing.module}.{thing.name}: documents {said}, takes {thing.names}")
        returns = thing.returns not in ("", "NoReturn", thing.owner)
        if returns and not thing.is_value and not parts.keys() & {"Returns", "Yields"}:
            wrong.append(f"{thing.module}.{thing.name}: returns {thing.returns} and does not say what")
    assert wrong == []


def test_what_the_tables_hold_is_on_the_api_pages():
    documented = {f"bidsdnn.{thing.module}.{thing.name}" for thing in THINGS}
    for table in TABLES:
        for one in table.values():
            found = inspect.unwrap(one)
            assert f"{found.__module__}.{found.__qualname__}" in documented
