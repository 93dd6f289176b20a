"""Folds over groups, whole blocks held out, and relabellings within blocks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut

from bidsdnn.methods.folds import block_orders, blocks_out, group_folds
from bidsdnn.methods.predict import kfold


def test_groups_of_one_are_kfold():
    names = [f"s{i:02d}" for i in range(23)]
    for ours, theirs in zip(group_folds(names, 5, seed=3), kfold(23, 5, seed=3), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_groups_never_straddle():
    groups = np.repeat(list("abcdefgh"), [1, 2, 3, 4, 1, 2, 3, 4])
    splits = group_folds(groups, 3, seed=0)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(20))
    assert all(not set(groups[train]) & set(groups[test]) for train, test in splits)
    with pytest.raises(ValueError, match=r"as many groups as folds \(9\), got 8"):
        group_folds(groups, 9, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        group_folds(groups, 1, seed=0)


def test_blocks_out_is_leave_one_group_out_less_the_held_out_groups_items():
    blocks, groups = list("aaabbbccc"), list("123145678")
    free = blocks_out(blocks, None)
    for (train, test), (wanted, held) in zip(free, LeaveOneGroupOut().split(groups, groups=blocks), strict=True):
        np.testing.assert_array_equal(train, wanted)
        np.testing.assert_array_equal(test, held)
    # Stimulus 1 is in runs a and b: it is trained on in neither fold that holds out one of these.
    trained = [train.tolist() for train, _ in blocks_out(blocks, groups)]
    assert trained == [[4, 5, 6, 7, 8], [1, 2, 6, 7, 8], [*range(6)]]
    assert [test.tolist() for _, test in blocks_out(blocks, groups, k=2)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    with pytest.raises(ValueError, match="more than 3, got 3"):
        blocks_out(blocks, groups, k=3)
    with pytest.raises(ValueError, match="out a leaves 0 of 4 items to train on, as 2 others show the same stimuli"):
        blocks_out(list("aabb"), list("1212"))


def test_relabellings_stay_within_blocks_and_keep_groups_together():
    blocks = np.array(list("aaaabbbbcc"))
    groups = np.array(list("1234125678"))  # 1 and 2 stand in a and b, 3 and 4 in a, 5 and 6 in b, 7 and 8 in c
    orders, count = block_orders(blocks, groups, permutations=200, seed=0)
    assert count == pytest.approx(2**4)
    assert {tuple(order) for order in orders} <= {
        tuple(order) for order in np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T for order in [_swapped(order)]
    }
    assert len({tuple(order) for order in orders}) == 16
    free, count = block_orders(blocks, permutations=50, seed=0)
    assert count == pytest.approx(24 * 24 * 2)
    assert (blocks[free] == blocks).all()
    assert (np.sort(free, axis=1) == np.arange(10)).all()
    np.testing.assert_array_equal(free, block_orders(blocks, permutations=50, seed=0)[0])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        block_orders(blocks, permutations=0, seed=0)
    with pytest.raises(ValueError, match="one shape"):
        block_orders(blocks, groups[1:], permutations=5, seed=0)


def _swapped(which):
    order = np.arange(10)
    for swap, pairs in zip(which, [[(0, 1), (4, 5)], [(2, 3)], [(6, 7)], [(8, 9)]], strict=True):
        for a, b in pairs:
            if swap:
                order[[a, b]] = order[[b, a]]
    return order
