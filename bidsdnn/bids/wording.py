"""Texts that go into the output dataset as they are."""

from __future__ import annotations

COVARIANCE = {
    "Description": "Covariance of the noise of each region's voxels, in the units of trials z-scored within runs: "
    "/covariance<i> (its attribute name is the region; a vector holds variances alone) of the columns /column<i>, "
    "counted from 0 over the voxels or vertices of the brain mask as they lie in its file, C order",
    "RelationshipMeasure": "covariance",
    "Weighted": True,
    "Directed": False,
    "ValidDiagonal": True,
    "StorageFormat": "Full",
    "NonNegative": False,
}
README = """# bidsdnn derivatives

How well networks explain responses to stimuli: start with `sub-*.html` and `group.html`.
Each table and map has a JSON file beside it that says what it is, what it was computed from and how.
The documentation describes every file: `docs/outputs.md` of the bidsdnn repository.
"""
