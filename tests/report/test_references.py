from __future__ import annotations

import re

import pytest

from bidsdnn.report.methods import REFERENCES, citation
from bidsdnn.report.network_works import network_reference


def test_citation_names_each_work_once_in_both_forms():
    markdown, bibtex = citation(["ridge", "rsa", "ridge"])
    assert markdown.splitlines() == [
        "- Hoerl AE, Kennard RW (1970). Ridge regression: biased estimation for nonorthogonal problems. "
        "Technometrics, 12(1), 55-67. doi:10.1080/00401706.1970.10488634",
        "- Kriegeskorte N, Mur M, Bandettini P (2008). Representational similarity analysis - connecting the "
        "branches of systems neuroscience. Frontiers in Systems Neuroscience, 2, 4. doi:10.3389/neuro.06.004.2008",
    ]
    assert re.findall(r"@article\{(\w+),", bibtex) == ["ridge", "rsa"]
    assert "author = {Hoerl, Arthur E. and Kennard, Robert W.}" in bibtex


def test_references_in_full_are_taken_as_they_are():
    markdown, bibtex = citation(["Someone A (2020). A work."])
    assert markdown == "- Someone A (2020). A work.\n" and "@" not in bibtex


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="keys: expected keys of REFERENCES or references in full, got 'rigde'"):
        citation(["rigde"])


@pytest.mark.parametrize("key", REFERENCES)
def test_every_work_can_be_cited(key):
    work = REFERENCES[key]
    markdown, bibtex = citation([key.upper()])
    assert work.title in markdown and bibtex.count("{") == bibtex.count("}")
    assert "others" not in markdown and not re.search(r"(?<!\\)&", bibtex)
    assert work.doi == "" or re.fullmatch(r"10\.\d{4,9}/\S+", work.doi)
    assert work.short.endswith(str(work.year)) if work.year else work.short


@pytest.mark.parametrize(
    ("network", "key"),
    [("alexnet", "alexnet"), ("ResNet50+default", "resnet"), ("vit_b_16", "vit"), ("vggish", "vggish"), ("mine", None)],
)
def test_networks_know_their_paper(network, key):
    assert network_reference(network) == key
