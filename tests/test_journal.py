"""The log folder of a run, written and read back."""

from __future__ import annotations

import logging

import pytest

from bidsdnn.config import resolve_config
from bidsdnn.errors import DataError
from bidsdnn.journal import Journal, command_text, early_records, latest, recall, software
from bidsdnn.parallel import attempt


@pytest.fixture
def config(tmp_path):
    return resolve_config({"bids_dir": str(tmp_path / "in"), "out_dir": str(tmp_path), "analysis_level": "participant"})


def fail():
    raise DataError("x.nii.gz: damaged; replace it")


def test_what_happened_is_read_back(tmp_path, config):
    logger = logging.getLogger("bidsdnn.test")
    logger.setLevel(logging.INFO)
    journal = Journal(tmp_path, "bidsdnn in out participant")
    with early_records() as early:
        logger.warning("before there was a folder")
    with journal.open(config, early):
        logger.warning("sub-02: of another")
        with journal.about("sub-01"):
            logger.warning("sub-01: of this one\twith a tab")
            logger.info("only said")
            journal.failed(attempt(fail, "sub-01"))
    folder = latest(tmp_path, "sub-01")
    assert folder == journal.folder
    assert latest(tmp_path, "sub-99") is None
    said = recall(folder, "sub-01")
    assert said["warnings"] == ("before there was a folder", "sub-01: of this one\twith a tab")
    assert said["errors"] == ("x.nii.gz: damaged; replace it",)
    assert "DataError" in said["tracebacks"][0]
    assert said["command"] == "bidsdnn in out participant"
    assert "analysis_level" in said["config"]
    assert said["seconds"] >= 0
    assert recall(folder, "sub-02")["errors"] == ()


def test_later_runs_come_later_in_order(tmp_path, config):
    for uuid in ("20260101-000000_b", "20260102-000000_a"):
        journal = Journal(tmp_path, "x", run_uuid=uuid)
        with journal.open(config), journal.about("group"):
            pass
    assert latest(tmp_path, "group").name == "20260102-000000_a"


def test_commands_can_be_typed_again():
    assert command_text(["bidsdnn", "a b", "--layer", "c*"]) == 'bidsdnn "a b" --layer c*'


def test_versions_are_those_of_what_ran():
    assert {"bidsdnn", "python", "torch", "nilearn"} <= set(software())
