"""What has no RDM, or one that nothing can be compared with, in sentences for the log and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bidsdnn.geometry.models import Model
from bidsdnn.methods.transforms import condensed_to_square

_NAMED = 5


def undefined(
    models: Sequence[Model],
    brains: Mapping[str, Mapping[str, np.ndarray]],
    ids: Sequence[str],
    *,
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[str]:
    """Say which layers and regions have no RDM that can be compared, and why.

    Parameters
    ----------
    models : sequence of Model
    brains : mapping of str to mapping of str to ndarray, shape (pairs,)
        By atlas and region.
    ids : sequence of str
        Stimuli of the RDMs.
    counts : mapping of str to mapping of str to int, optional
        Usable voxels.

    Returns
    -------
    list of str
    """
    sentences = []
    few = [name for table in (counts or {}).values() for name, count in table.items() if count < 2]
    if few:
        sentences.append(f"No RDM (n/a) of regions with fewer than 2 usable voxels: {_listed(few)}.")
    sides = {
        "layers": {f"{one.layer} of {one.network}": one.rdm for one in models},
        "regions": {name: rdm for table in brains.values() for name, rdm in table.items() if name not in few},
    }
    for kind, rdms in sides.items():
        flat = [name for name, rdm in rdms.items() if np.isfinite(rdm).all() and np.ptp(rdm) == 0]
        if flat:
            sentences.append(f"Nothing to compare (n/a) in {kind} whose distances are all equal: {_listed(flat)}.")
        gaps = {name: rdm for name, rdm in rdms.items() if not np.isfinite(rdm).all()}
        if gaps:
            lost = np.any([_without_any(rdm) for rdm in gaps.values()], axis=0)
            stimuli = _listed([one for one, there in zip(ids, lost, strict=True) if there])
            sentences.append(
                f"No RDM (n/a) of {kind} {_listed(list(gaps))}: patterns of {lost.sum()} of {len(ids)} stimuli "
                f"({stimuli}) are constant or not finite; euclidean distances (--rdm-metric) are defined for constant "
                "ones too."
            )
    return sentences


def _without_any(rdm: np.ndarray) -> np.ndarray:
    """Stimuli that have no distance to any other."""
    known = condensed_to_square(np.isfinite(rdm))
    return np.asarray(~known.any(axis=1))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
