"""Tables joined by identity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from bidsdnn.patterns import Group, Patterns, Rows


def patterns(ids, values=None, name="a", network=""):
    values = np.arange(len(ids) * 3, dtype=float).reshape(len(ids), 3) if values is None else values
    return Patterns(pd.DataFrame({"stimulus_id": ids}), (Group(name, values, network),))


def test_rows_are_joined_by_identity_and_never_by_order():
    features, brain = patterns(["c", "a", "d", "b"]), patterns(["a", "b", "c"])
    matched = features.match(brain)
    assert matched.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(matched.values, features.values[[1, 3, 0]])


def test_a_stimulus_without_partner_stops_the_run():
    with pytest.raises(ValueError, match=r"1 stimuli have no partner, the first: \['z'\]"):
        patterns(["a", "b"]).match(patterns(["a", "z"]))
    with pytest.raises(ValueError, match="'a' stands twice"):
        patterns(["a", "a"]).match(patterns(["a"]))


def test_average_is_over_the_items_of_a_stimulus():
    table = patterns(["b", "a", "b"], np.array([[1.0, 2], [5, 6], [3, 8]]))
    mean = table.average()
    assert mean.ids == ["a", "b"]
    assert mean.items["n_repeats"].tolist() == [1, 2]
    np.testing.assert_array_equal(mean.values, [[5, 6], [2, 5]])


def test_rows_read_blocks_of_columns_only_when_asked():
    class Watched:
        shape = (4, 6)
        asked: list = []

        def __getitem__(self, key):
            self.asked.append(key)
            return np.arange(24).reshape(4, 6)[key]

    watched = Watched()
    rows = Rows(watched, np.array([2, 0]))
    assert rows.shape == (2, 6)
    assert not watched.asked
    np.testing.assert_array_equal(rows[:, 1:3], [[13, 14], [1, 2]])


def test_group_gram_and_rdm():
    values = np.random.default_rng(0).normal(size=(6, 50))
    group = Group("a", values)
    inner, sums, units = group.gram()
    np.testing.assert_allclose(inner, values @ values.T)
    np.testing.assert_allclose(sums, values.sum(axis=1))
    assert units == 50
    np.testing.assert_allclose(group.rdm(), pdist(values, "correlation"), atol=1e-12)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="3 rows for 2 items"):
        patterns(["a", "b"], np.zeros((3, 2)))
    with pytest.raises(ValueError, match="column stimulus_id"):
        Patterns(pd.DataFrame({"x": [1]}), ())
    two = Patterns(pd.DataFrame({"stimulus_id": ["a"]}), (Group("x", np.zeros((1, 1))), Group("y", np.zeros((1, 1)))))
    with pytest.raises(ValueError, match=r"one group of columns, got \['x', 'y'\]"):
        _ = two.values
    assert [group.name for group in two.select(lambda group: group.name == "y").groups] == ["y"]
    assert len(two) == 1
