"""The methods section: sentences, each once and with its works; as Markdown, LaTeX and BibTeX."""

from __future__ import annotations

import re

import pytest

from bidsdnn.report.atlas_works import atlas_reference
from bidsdnn.report.citing import bibtex, latex, markdown
from bidsdnn.report.groupmodels import SUFFIXES
from bidsdnn.report.methods import REFERENCES
from bidsdnn.report.prose import paragraphs, split, title_of, works_of
from bidsdnn.report.tex import escaped

SOFTWARE = {"bidsdnn": "0.1.0", "python": "3.12.1", "numpy": "2.0.1", "torch": "2.5.0"}
ENCODING = {
    "Methods": "Responses were predicted from each layer with nested cross-validation. Ridge regression was fitted.",
    "References": ["encoding", "ridge", "numpy", "bids"],
    "Software": SOFTWARE,
}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two (a. b). p was low.", ["One.", "Two (a. b).", "p was low."]),
        ("After Ince et al. Prevalence was found.", ["After Ince et al. Prevalence was found."]),
        (
            "Values were 0..1, r above 1.645 / sqrt(n). No end",
            ["Values were 0..1, r above 1.645 / sqrt(n).", "No end."],
        ),
        ("", []),
    ],
)
def test_texts_are_taken_apart_into_sentences(text, parts):
    assert split(text) == parts


def test_sentences_stand_once_and_works_at_theirs():
    again = {"Methods": "Ridge regression was fitted. Searchlights moved.", "References": ["ridge", "searchlight"]}
    found = paragraphs([("participant", "searchlight", again), ("participant", "encoding", ENCODING),
                        ("participant", "encodingfolds", ENCODING)])  # fmt: skip
    assert [one.title for one in found] == ["Encoding", "Searchlights", "Software"]
    encoding, lights, software = found
    assert encoding.text == (
        "Responses were predicted from each layer with nested cross-validation (Naselaris et al., 2011). "
        "Ridge regression was fitted (Hoerl & Kennard, 1970)."
    )
    assert lights.text == "Searchlights moved (Kriegeskorte et al., 2006)."
    assert "bidsdnn 0.1.0" in software.text and "Python 3.12.1 with NumPy 2.0.1 (Harris" in software.text
    assert "PyTorch" not in software.text, "nothing cites it"


def test_what_was_not_run_is_not_cited():
    found = paragraphs([("participant", "encoding", ENCODING)])
    assert set(works_of(found)) == {"encoding", "ridge", "bidsdnn", "bids", "numpy"}
    assert "rsa" not in bibtex(found) and "Kriegeskorte" not in markdown(found)


def test_levels_and_names_say_which_paragraph():
    assert title_of("dnn", "activations") == "Networks" and title_of("group", "rsa") == "Group"
    assert title_of("participant", "") == title_of("participant", "rsachannel") == "Representational similarity"
    assert title_of("participant", "searchlightdecoding+category") == "Searchlights"
    assert title_of("dnn", "topstimuli") == "Inside the networks"
    for model in SUFFIXES:
        for desc in (f"encoding{model}", f"confusion{model}+kind"):
            assert title_of("group", desc) == "Models of the group"


@pytest.mark.parametrize(
    ("label", "key"),
    [("Schaefer2018", "schaefer"), ("schaefer", "schaefer"), ("Glasser", "glasser"), ("HCPMMP1", "glasser"),
     ("aparc", "desikan"), ("aparc+a2009s", "destrieux"), ("Wang15", "wang-topography"), ("mine", None)],
)  # fmt: skip
def test_atlases_of_known_names_have_their_work(label, key):
    assert atlas_reference(label) == key
    assert key is None or key in REFERENCES


def test_atlases_are_cited_by_their_own_description_or_name():
    atlases = {"Schaefer2018": ["schaefer"], "mine": ["Doe J (2020). My regions_1 & more."], "other": []}
    found = paragraphs([("participant", "encoding", ENCODING)], atlases=atlases)
    regions = next(one for one in found if one.title == "Regions")
    assert "atlas Schaefer2018 (Schaefer et al., 2018)." in regions.text and "atlas other." in regions.text
    assert "atlas mine (Doe, 2020)." in regions.text
    bib = bibtex(found)
    assert "@misc{doe-j-2020-my,\n  note = {Doe J (2020). My regions\\_1 \\& more.}\n}" in bib
    assert r"~\cite{doe-j-2020-my}" in latex(found) and "- Doe J (2020). My regions_1 & more." in markdown(found)


def test_special_characters_are_escaped():
    assert escaped(r"50% of A_b & c #1 $x {y} ~z ^w \v") == (
        r"50\% of A\_b \& c \#1 \$x \{y\} \textasciitilde{}z \textasciicircum{}w \textbackslash{}v"
    )
    assert escaped("Güçlü, Côté, Schütt, Bießmann, a – b, R²") == (
        r"G{\"u}{\c c}l{\"u}, C{\^o}t{\'e}, Sch{\"u}tt, Bie{\ss}mann, a -- b, R$^2$"
    )


@pytest.mark.parametrize("key", REFERENCES)
def test_every_entry_of_bibtex_is_well_formed(key):
    entry = REFERENCES[key].bibtex
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, flags=re.M))
    assert entry.startswith(f"@{REFERENCES[key].kind}{{{key},\n") and len(fields) == entry.count(" = {")
    depth = 0
    for sign in re.sub(r"\\[{}]", "", entry):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0 and entry.isascii()
    for name, text in fields.items():
        assert name == "doi" or not re.search(r"(?<!\\)[%#_&$~^]", re.sub(r"\\\^|\\~|\$\^2\$", "", text)), (key, name)
    assert "others" not in fields["author"] or fields["author"].endswith(" and others")
    if re.fullmatch(r"\d+(\([\d-]+\))?, \S+", REFERENCES[key].where):
        assert {"volume", "pages"} <= fields.keys()


def test_the_latex_cites_what_the_bibtex_has_and_nothing_else():
    sidecar = {**ENCODING, "Methods": "Layers conv_1 & fc were used {at 50%}.", "References": ["ridge", "rsa", "vgg"]}
    found = paragraphs([("participant", "rsa", sidecar)], atlases={"Glasser": ["glasser"]})
    text = latex(found)
    cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", bibtex(found), flags=re.M)) and "glasser" in cited
    assert r"Layers conv\_1 \& fc were used \{at 50\%\}~\cite{" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[&%#_$^]", body)
    plain = re.sub(r"\\[{}]", "", body)
    assert plain.count("{") == plain.count("}")
