"""Confounds by strategy: equal to nilearn's where it reads the file, and the same under every version's names."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bidsdnn.bids.confounds import (
    STRATEGIES,
    chosen_columns,
    current_name,
    framewise_displacement,
    known_strategy,
    non_steady_state,
    read_confounds,
)
from bidsdnn.errors import DataError

NILEARN = {
    "motion": ("motion", {"motion": "basic"}),
    "motion-12": ("motion", {"motion": "derivatives"}),
    "motion-24": ("motion", {"motion": "full"}),
    "wm_csf": ("wm_csf", {"wm_csf": "basic"}),
    "wm_csf-8": ("wm_csf", {"wm_csf": "full"}),
    "global_signal-2": ("global_signal", {"global_signal": "derivatives"}),
    "compcor-4": ("compcor", {"compcor": "anat_combined", "n_compcor": 4}),
    "acompcor-all": ("compcor", {"compcor": "anat_combined", "n_compcor": "all"}),
}


@pytest.fixture(scope="module")
def files(demo_dataset):
    folder = demo_dataset / "derivatives" / "fmriprep" / "sub-01" / "func"
    table = next(folder.glob("*_run-1_desc-confounds_timeseries.tsv"))
    return table, next(folder.glob("*_run-1_space-*_desc-preproc_bold.nii.gz"))


def whole(table, bold):
    return read_confounds(table, n_volumes=len(pd.read_csv(table, sep="\t")), bold=bold)


@pytest.mark.parametrize("name", NILEARN)
def test_strategies_equal_nilearns(files, name):
    from nilearn.interfaces.fmriprep import load_confounds

    table, bold = files
    strategy, options = NILEARN[name]
    # Nilearn insists on the cosines beside CompCor.
    both = (strategy, "high_pass") if strategy == "compcor" else (strategy,)
    expected, _ = load_confounds(str(bold), strategy=both, demean=False, **options)
    expected = expected.drop(columns=[c for c in expected if c.startswith("cosine")])
    metadata = json.loads(table.with_suffix(".json").read_text())
    found = chosen_columns(whole(table, bold), [name], path=table, metadata=metadata)
    assert set(found) == set(expected)
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)


def test_expansions_that_are_not_written_are_computed(files):
    table, bold = files
    full = whole(table, bold)
    least = full[[c for c in full if not c.endswith(("_derivative1", "_power2"))]]
    pd.testing.assert_frame_equal(
        chosen_columns(least, ["motion-24"], path=table), chosen_columns(full, ["motion-24"], path=table), atol=1e-6
    )


def test_free_columns_and_patterns(files):
    table, bold = files
    full = whole(table, bold)
    found = chosen_columns(full, ["trans_?", "csf", "trans_x", "a_comp_cor_0[01]"], path=table)
    assert found.columns.tolist() == ["trans_x", "trans_y", "trans_z", "csf", "a_comp_cor_00", "a_comp_cor_01"]
    with pytest.raises(DataError, match=r"timeseries.tsv: no column 'crf' of --confounds; did you mean csf"):
        chosen_columns(full, ["crf"], path=table)
    with pytest.raises(DataError, match=r"no column 'aroma_motion_\*' of --confounds ica_aroma"):
        chosen_columns(full, ["ica_aroma"], path=table)
    with pytest.raises(DataError, match="no components for --confounds tcompcor"):
        chosen_columns(full, ["tcompcor"], path=table)


def test_components_come_from_the_combined_mask_that_were_retained():
    table = pd.DataFrame({f"a_comp_cor_{i:02d}": [float(i)] * 3 for i in range(4)})
    about = {
        "a_comp_cor_00": {"Mask": "CSF", "Retained": True},
        "a_comp_cor_01": {"Mask": "combined", "Retained": True},
        "a_comp_cor_02": {"Mask": "combined", "Retained": False},
        "a_comp_cor_03": {"Mask": "combined", "Retained": True},
    }
    found = chosen_columns(table, ["acompcor"], path="c.tsv", metadata=about)
    assert found.columns.tolist() == ["a_comp_cor_01", "a_comp_cor_03"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X", "trans_x"),
        ("RotZ", "rot_z"),
        ("aCompCor05", "a_comp_cor_05"),
        ("tCompCor00", "t_comp_cor_00"),
        ("Cosine03", "cosine03"),
        ("FramewiseDisplacement", "framewise_displacement"),
        ("NonSteadyStateOutlier02", "non_steady_state_outlier02"),
        ("AROMAAggrComp11", "aroma_motion_11"),
        ("WhiteMatter", "white_matter"),
        ("stdDVARS", "std_dvars"),
        ("trans_x", "trans_x"),
        ("mine", "mine"),
    ],
)
def test_old_names(old, new):
    assert current_name(old) == new


def test_every_strategy_is_known():
    assert all(known_strategy(name) for name in (*STRATEGIES, "compcor", "acompcor-10", "tcompcor-all"))
    assert not known_strategy("motion-7")
    assert len(STRATEGIES["motion-24"]) == 24


def test_steady_state_by_both_spellings():
    table = pd.DataFrame({"non_steady_state_outlier_00": [1.0, 0, 0], "non_steady_state_outlier01": [0.0, 1, 0]})
    assert non_steady_state(table).tolist() == [True, True, False]
    assert not non_steady_state(table[[]]).any()
    assert np.isnan(framewise_displacement(table)).all()
