"""A target's classes told from the neighbourhood of every voxel or vertex."""

from __future__ import annotations

from typing import Any

import numpy as np

from bidsdnn.bids import names
from bidsdnn.decoding.targets import Target
from bidsdnn.errors import DataError
from bidsdnn.folding import Folding
from bidsdnn.geometry import Regions
from bidsdnn.methods.searchlight_decoding import Told, searchlight_decoding
from bidsdnn.parallel import Map as ParallelMap
from bidsdnn.result import Map

ALPHA = 0.05


def searchlights(
    target: Target, folded: Folding, regions: Regions, *, radius: float, device: str, map: ParallelMap
) -> tuple[list[Map], list[dict[str, Any]]]:
    """Decode the neighbourhood of every centre, whatever the space.

    Parameters
    ----------
    target : Target
        Of classes, with the space of its responses.
    folded : Folding
    regions : mapping of str to mapping of str to ndarray of bool
        For the table.
    radius : float
        In mm, along the cortex on surfaces.
    device : str
    map : callable

    Returns
    -------
    maps : list of Map
        Balanced accuracy, p and family-wise p.
    rows : list of dict
        Mean, peak and number of significant centres of each region.

    Raises
    ------
    DataError
        If the target has no classes, or the space knows no neighbours.
    """
    if not target.classes:
        raise DataError(
            f"parameters.decoding.searchlight: --target {target.name} has numbers, and searchlights tell classes; "
            "leave one of them out"
        )
    found = searchlight_decoding(
        target.table.values, target.table.space.neighbors(radius=radius), target.labels, folded.splits,
        n_classes=len(target.classes), orders=folded.orders, device=device, map=map,
    )  # fmt: skip
    about = {
        "Target": target.name,
        "NeighborhoodExtent": f"{radius:g} mm",
        "NumberOfCentres": int(np.isfinite(found.p).sum()),
        "Chance": 1 / len(target.classes),
        "Decoder": "ridge regression on class indicators, penalty fixed",
        "NullDistribution": f"{len(folded.orders):,} {folded.test}",
    }
    desc = f"searchlightdecoding+{names.label(target.name)}"
    values = {"balancedaccuracy": found.balanced_accuracy, "p": found.p, "pfwe": found.p_familywise}
    said = {"balancedaccuracy": "Balanced accuracy in", "p": "Uncorrected p of", "pfwe": "Family-wise p of"}
    maps = [
        Map(stat, one, sidecar={**about, "Description": f"{said[stat]} the neighbourhood of each centre"}, desc=desc)
        for stat, one in values.items()
    ]
    return maps, _rows(target, found, regions)


def _rows(target: Target, found: Told, regions: Regions) -> list[dict[str, Any]]:
    rows = []
    for atlas, table in regions.items():
        for region, columns in table.items():
            inside = np.flatnonzero(columns & np.isfinite(found.p))
            peak = inside[found.balanced_accuracy[inside].argmax()] if len(inside) else None
            rows.append({
                "atlas": atlas, "region": region, "target": target.name, "n_voxels": len(inside),
                "balanced_accuracy": found.balanced_accuracy[inside].mean() if len(inside) else np.nan,
                "chance": 1 / len(target.classes),
                **({} if peak is None else {
                    "peak": found.balanced_accuracy[peak], "peak_p": found.p[peak],
                    "peak_pfwe": found.p_familywise[peak],
                }),
                "n_significant": int((found.p_familywise[inside] < ALPHA).sum()),
            })  # fmt: skip
    return rows
