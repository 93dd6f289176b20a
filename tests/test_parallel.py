"""One map, in order, whose work may fail without stopping the rest."""

from __future__ import annotations

import numpy as np
import pytest

from bidsdnn.errors import DataError
from bidsdnn.parallel import attempt, available_cpus, describe, serial, workers


def _square(value):
    return value @ value.T


def _fail(value):
    raise DataError(f"bad {value}")


@pytest.mark.parametrize("n", [1, 2])
def test_results_come_in_order_and_do_not_depend_on_workers(n, tmp_path):
    items = [np.random.default_rng(seed).normal(size=(40, 600)) for seed in range(5)]
    with workers(n, folder=tmp_path) as run:
        found = run(_square, items, label="squares")
    for one, item in zip(found, items, strict=True):
        np.testing.assert_array_equal(one, serial(_square, [item])[0])


def test_an_error_of_a_worker_arrives_with_its_type():
    with workers(2) as run, pytest.raises(DataError, match="bad 1"):
        run(_fail, [1, 2])


def test_attempt_keeps_the_error():
    assert attempt(lambda: 3, "sub-01").value == 3
    outcome = attempt(lambda: _fail("x"), "sub-01")
    assert isinstance(outcome.error, DataError)
    assert "Traceback" in outcome.traceback
    assert describe(outcome.error) == "bad x"
    assert describe(KeyError("k")) == "KeyError: 'k'"


def test_processors_are_those_the_scheduler_gave():
    assert available_cpus() >= 1
