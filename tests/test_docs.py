"""The documentation: generated pages are up to date, and its examples run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from bidsdnn.bids.files import read_table
from bidsdnn.cli import main

ROOT = Path(__file__).parents[1]


def test_the_command_line_page_is_what_the_parser_says():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]
    assert (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8") == page()


def test_links_of_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_shows_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_the_examples_of_extending_run(finished, tmp_path, monkeypatch):
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
