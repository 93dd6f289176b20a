"""Where results of models of a group go: tables and RDMs into ``group/``, maps into ``tpl-<space>/func``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bidsdnn.bids.derivatives import Derivatives
from bidsdnn.groupmodels.people import Shared
from bidsdnn.result import Matrices, Result

SUFFIX = {"averaged": "Averaged", "stacked": "Stacked", "cross-participant": "Crossparticipant"}
"""What is added to ``desc-``, by ``--group-model``."""


class GroupDerivatives(Derivatives):
    """The output dataset, for products that are of no participant: a map's space is its template."""

    def path(self, suffix: str, extension: str, *, datatype: str | None = "func", **entities: Any) -> Path:
        """Where a product goes, as `Derivatives.path`."""
        if suffix in ("results", "relmat"):
            return super().path(suffix, extension, datatype="group", **entities)
        return super().path(suffix, extension, datatype=datatype, tpl=entities.pop("space", None), **entities)


def renamed(result: Result, model: str, *, maps: bool) -> Result:
    """A result whose products say which model of a group they are of.

    Parameters
    ----------
    result : Result
    model : str
        Row of `SUFFIX`.
    maps : bool
        Whether its columns are points of a space, so that it has maps.

    Returns
    -------
    Result
    """

    def name(desc: str) -> str:
        head, plus, rest = desc.partition("+")
        return f"{head}{SUFFIX[model]}{plus}{rest}"

    rdms = [
        Matrices(name(result.analysis), ids, table, atlas, sidecar={"Description": "Dissimilarity of stimuli"})
        for atlas, (ids, table) in result.arrays.items()
    ]
    matrices = [replace(one, desc=name(one.desc)) for one in result.matrices]
    return replace(
        result,
        analysis=name(result.analysis),
        maps=tuple(replace(one, desc=name(one.desc or result.analysis)) for one in result.maps) if maps else (),
        tables={name(desc): table for desc, table in result.tables.items() if maps or desc != "bestvoxels"},
        arrays={},
        matrices=(*matrices, *rdms),
        covariances={},
        columns=result.columns if maps else (),
    )


def about(shared: Shared, model: str, said: str, ceiling: str, omitted: list[str]) -> dict[str, Any]:
    """What a reader of a group's model needs to know, as keys of its sidecars.

    Parameters
    ----------
    shared : Shared
    model : str
    said : str
        First sentences of the Methods.
    ceiling : str
        What the ceiling is.
    omitted : list of str
        Who and what was left out.

    Returns
    -------
    dict
    """
    return {
        "GroupModel": model,
        "GroupMethods": said,
        "Participants": shared.labels,
        "NumberOfParticipants": len(shared.labels),
        "NumberOfStimuli": len(shared.ids),
        "Columns": "points in the masks of all" if shared.space is not None else "means over regions",
        **({"Ceiling": ceiling} if ceiling else {}),
        "Omitted": [*shared.omitted, *omitted],
    }
