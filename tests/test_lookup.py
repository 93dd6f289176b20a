"""From names to objects: tables, modules, files; parameters bound before data is read."""

from __future__ import annotations

import math

import pytest

from bidsdnn.errors import ConfigError
from bidsdnn.lookup import bind, closest, resolve, summary


def test_a_row_a_module_and_a_file(tmp_path):
    assert resolve("a", {"a": 1}) == 1
    assert resolve("math:sqrt", {}) is math.sqrt
    path = tmp_path / "mine.py"
    path.write_text("def build():\n    return 7\n")
    assert resolve(f"{path}:build", {})() == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encodin", "did you mean encoding"),
        ("math:sqrtt", "did you mean .*sqrt"),
        ("no_such_module:x", "cannot import"),
        ("no_such.py:x", "file not found"),
    ],
)
def test_unknown_names_say_what_is_near(name, message):
    with pytest.raises(ConfigError, match=message):
        resolve(name, {"encoding": 1, "rsa": 2})


def test_closest_lists_what_there_is():
    assert closest("zzz", ["a", "b"]) == "there are a, b"
    assert closest("zzz", []) == "there are none"


def test_parameters_are_bound_early():
    def analysis(x, *, seed, n_splits=10):
        """Say it.

        More.
        """

    bind(analysis, {"n_splits": 3}, name="analysis", given=("seed",))
    with pytest.raises(ConfigError, match="no parameter 'n_split'; did you mean n_splits"):
        bind(analysis, {"n_split": 3}, name="analysis")
    with pytest.raises(ConfigError, match="no parameter 'seed'"):
        bind(analysis, {"seed": 3}, name="analysis", given=("seed",))
    with pytest.raises(ConfigError, match="no parameter 'x'"):
        bind(analysis, {"x": 3}, name="analysis")
    assert summary(analysis) == "Say it."
