"""participants.tsv: read by label, one line for each thing that is wrong."""

from __future__ import annotations

import math

import pytest

from bidsdnn.bids.people import read_people
from bidsdnn.cli import main
from bidsdnn.errors import DataError, MissingInputError
from bidsdnn.groupeffects import effects_of

TABLE = "participant_id\tage\tgroup\tsite\nsub-02\t30\tpatient\ta\nsub-01\t20.5\tcontrol\ta\nsub-03\tn/a\tcontrol\tb\n"
MORE = "".join(f"sub-{i:02d}\t{20 + i}\t{'patient' if i % 2 else 'control'}\tc\n" for i in range(4, 9))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "participants.tsv").write_text(TABLE)
    return tmp_path


def test_values_are_joined_by_participant(root):
    people = read_people(root, ["01", "02", "03", "09"], ["age"], "group")
    assert people.covariates["age"]["01"] == 20.5 and math.isnan(people.covariates["age"]["03"])
    assert people.levels == ("control", "patient")
    assert [people.groups[label] for label in ("01", "02", "03")] == [0, 1, 0] and math.isnan(people.groups["09"])
    assert read_people(root, ["01"]) is None


def test_each_effect_holds_the_others_and_names_who_is_left_out(root):
    (root / "participants.tsv").write_text(TABLE + MORE)
    labels = [f"{i:02d}" for i in range(1, 9)]
    omitted = []
    age, sick = effects_of(read_people(root, labels, ["age"], "group"), labels, omitted)
    assert omitted == ["sub-03 has no age in participants.tsv and was left out of the tests of covariates and groups."]
    assert (age.name, age.contrast, age.held) == ("age", "age", ("group",))
    assert (sick.name, sick.contrast, sick.groups) == (
        "patient - control",
        "patient+control",
        {"control": 4, "patient": 3},
    )
    assert sick.labels == [label for label in labels if label != "03"] and sick.nuisance[1, 0] == 30
    few = []
    assert effects_of(read_people(root, ["01", "02", "03"], ["age"]), ["01", "02", "03"], few) == []
    assert few[1] == "age was not tested: only 2 participants have all values, 4 are needed."


@pytest.mark.parametrize(
    ("covariates", "column", "labels", "message"),
    [
        (["agee"], None, ["01", "02"], "--covariate agee: .*participants.tsv has no such column; did you mean age"),
        ([], "sex", ["01", "02"], "--group-column sex: .*no such column"),
        (
            [],
            "site",
            ["01", "02", "03", "04"],
            r"site: .*holds 3 values for these participants \(a, b, c\)",
        ),
        ([], "group", ["01", "03"], "holds 1 values"),
        (["group"], None, ["01", "02"], "says 'control' of sub-01, which is no number; write numbers or n/a"),
        (["age"], None, ["02", "03"], "the same value for all"),
    ],
)
def test_what_cannot_be_used_is_one_line(root, covariates, column, labels, message):
    (root / "participants.tsv").write_text(TABLE + MORE)
    with pytest.raises(DataError, match=message) as caught:
        read_people(root, labels, covariates, column)
    assert "\n" not in str(caught.value)


def test_one_participant_is_left_to_be_refused_as_no_group(root):
    assert read_people(root, ["01"], ["age"]) is None


def test_without_a_table_or_with_a_participant_twice(root):
    (root / "participants.tsv").write_text(TABLE + "sub-01\t30\tpatient\ta\n")
    with pytest.raises(DataError, match="sub-01 has two rows"):
        read_people(root, ["01", "02"], ["age"])
    (root / "participants.tsv").unlink()
    with pytest.raises(MissingInputError, match=r"participants\.tsv: file not found"):
        read_people(root, ["01"], ["age"])


def test_flags_are_checked_before_anything_else(root, capsys):
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    arguments = [str(root), str(root / "derivatives" / "out"), "group", "--network", "none"]
    assert main([*arguments, "--covariate", "agee"]) == 65
    assert main([*arguments, "--group_column", "sexx"]) == 65
    lines = capsys.readouterr().err.strip().splitlines()
    assert "--covariate agee" in lines[0] and "--group-column sexx" in lines[1] and len(lines) == 2
