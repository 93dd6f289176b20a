from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.filters import bids_filters, event_filter
from bidsdnn.errors import ConfigError

EVENTS = pd.DataFrame(
    {
        "onset": [0.0, 1.5, 3.0, 4.5],
        "trial_type": ["exp", "catch", None, "it's"],
        "score": ["1", "2.50", "bad", None],
        "StimOn(s)": ["1", "2", "3", "4"],
        "a.b": ["1", "1", "2", "2"],
    }
)
ROWS = [
    ("trial_type == 'exp'", "1000"),
    ('trial_type == "exp"', "1000"),
    ("trial_type != 'exp'", "0101"),
    ("not trial_type == 'exp'", "0101"),
    ("trial_type == 'n/a'", "0010"),
    ("trial_type != 'n/a'", "1101"),
    ("not trial_type == 'n/a'", "1101"),
    ("trial_type in ('exp', 'catch')", "1100"),
    ("trial_type in ['exp', 'n/a',]", "1010"),
    ("trial_type not in ('exp')", "0101"),
    ("not trial_type in ('exp')", "0101"),
    (r"trial_type == 'it\'s'", "0001"),
    ("score == 2.5", "0100"),
    ("score in (1, 2.5)", "1100"),
    ("score >= 1", "1100"),
    ("score < 2", "1000"),
    ("score <= -1", "0000"),
    ("score > 1e0", "0100"),
    ("score != 1", "0110"),
    ("not score > 1", "1010"),
    ("onset > 1.4 and onset < 4", "0110"),
    ("onset == '1.5'", "0100"),
    ("`StimOn(s)` == 2 or `StimOn(s)`==4", "0101"),
    ("a.b == 2 and (onset == 3 or trial_type == 'exp')", "0010"),
    ("onset == 0 or onset == 3 and trial_type == 'exp'", "1000"),
    ("(onset == 0 or onset == 3) and trial_type == 'n/a'", "0010"),
    ("not (trial_type == 'exp' or onset == 1.5)", "0001"),
    ("not not onset == 0", "1000"),
]


@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_event_filter_selects_rows(text, expected):
    kept = event_filter(text)(EVENTS)
    assert kept.dtype == bool
    assert "".join("01"[int(k)] for k in kept) == expected


@pytest.mark.parametrize(
    ("text", "position", "hint"),
    [
        ("trial_type = 'exp'", 12, "write =="),
        ("trial_type == exp", 15, "'exp'"),
        ("trial_type == 'exp", 15, "unclosed quote"),
        ("trial_type", 11, "the end"),
        ("", 1, "a column's name"),
        ("'exp' == trial_type", 1, "a column's name"),
        ("(onset == 1", 12, r"\)"),
        ("onset == 1)", 11, "expected `and`"),
        ("onset in 1", 10, "a list"),
        ("onset in ()", 11, "a number or a text"),
        ("onset in (1 2)", 13, "`,`"),
        ("onset in (1]", 12, "`,` or"),
        ("onset not == 1", 11, "`in`"),
        ("trial_type < 'b'", 14, "no order"),
        ("onset == 1 & onset == 2", 12, "unknown sign"),
        ("onset == 1x", 10, "unknown sign"),
        ("__import__('os')", 11, "expected one of"),
        ("(" * 80 + "onset == 1" + ")" * 80, 52, "levels"),
    ],
)
def test_event_filter_names_the_position_of_a_mistake(text, position, hint):
    with pytest.raises(ConfigError, match=f"(?s){hint}.*") as caught:
        event_filter(text)
    assert f"at position {position}," in str(caught.value)
    assert "\n" not in str(caught.value)


def test_event_filter_names_the_columns_there_are():
    wanted = event_filter("trialtype == 'exp' or onset > 1 or onset < 0")
    assert wanted.columns == ("trialtype", "onset")
    with pytest.raises(ConfigError, match=r"'trialtype'.*onset, trial_type"):
        wanted(EVENTS)


def test_event_filter_agrees_with_pandas_on_random_tables():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.integers(0, 5, 200).astype(str), "b": rng.choice(["x", "y", "z"], 200)})
    numbers = table.assign(a=table["a"].astype(float))
    text = "(a >= 2 and b in ('x', 'y')) or not (a < 1 or b != 'z')"
    expected = numbers.eval("(a >= 2 and b in ('x', 'y')) or not (a < 1 or b != 'z')")
    np.testing.assert_array_equal(event_filter(text)(table), expected)


def test_bids_filters_are_given_as_read(tmp_path):
    path = tmp_path / "filters.json"
    content = {"bold": {"task": ["a", None], "acquisition": None, "run": 1}, "mask": {"space": "*"}}
    path.write_text(json.dumps(content))
    assert bids_filters(path) == content


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "a list"),
        ('{"t1w": {}}', "'t1w'.*bold, events, mask, confounds"),
        ('{"bold": 1}', "'bold'"),
        ('{"bold": {"run": true}}', "bold.run"),
        ('{"bold": {"run": {"a": 1}}}', "bold.run"),
        ('{"bold": {"run": []}}', "bold.run"),
    ],
)
def test_bids_filters_refuse_what_cannot_be_meant(tmp_path, content, named):
    path = tmp_path / "filters.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=named):
        bids_filters(path)


def test_bids_filters_need_the_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        bids_filters(tmp_path / "none.json")
