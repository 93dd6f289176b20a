"""Maps that the reader can turn: pages beside the report, made by nilearn, that ask nothing of any server."""

from __future__ import annotations

import inspect
import re

import numpy as np

from bidsdnn.report.backdrop import Backdrop, Picture, inflated_fsaverage5, read_picture
from bidsdnn.report.blocks import Block, View, Views, attempt
from bidsdnn.report.brains import best_layer, peak
from bidsdnn.report.drawing import slug
from bidsdnn.report.entries import Entry, pick
from bidsdnn.report.sheets import Sheet, sulci
from bidsdnn.result import JOINT
from bidsdnn.spaces import Volume, fsaverage5

# Share of the highest score from which the cortex is coloured, as on the still maps.
_SHOWN_FROM = 0.5
_GAP = 8.0
# Whatever a version of nilearn writes: the browser fetches nothing for it.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src data: blob:; worker-src blob:"
)
_ICON = re.compile(r"<link\b[^>]*\brel=[\"']?icon[^>]*>")


def view_blocks(entries: list[Entry], base: Backdrop, stem: str, problems: list[str], *, level: str) -> list[Block]:
    """Make a page that turns for each map of scores: the best layer's score on the inflated cortex.

    Parameters
    ----------
    entries : list of Entry
        Of one context.
    base : Backdrop
    stem : str
        Beginning of the file names.
    problems : list of str
        Warnings are added here.
    level : str
        ``participant`` takes the maps of r, ``group`` those of its mean.

    Returns
    -------
    list of Block
    """
    found: list[View] = []
    for entry in pick(entries, "statmap", "encoding", "mean" if level == "group" else "pearsonr"):

        def make(entry: Entry = entry) -> list[Block]:
            found.append(_view(entry, base, stem))
            return []

        attempt(make, f"interactive view of {entry.path.name}", problems)
    return [Views("Maps that turn", tuple(found))] if found else []


def _view(entry: Entry, base: Backdrop, stem: str) -> View:
    picture = read_picture(entry.path, base)
    layers = list(entry.sidecar.get("Layers") or [])
    score = picture.values[0] if layers[:1] == [JOINT] else best_layer(picture.values)[1]
    highest = max(peak(score), 1e-6)
    model = str(entry.sidecar.get("Network") or entry.entities.get("model", "network"))
    html = _turning(_on_cortex(picture, entry, score), highest, f"{model}: r of the best layer")
    return View(f"{stem}_model-{slug(model)}_view.html", f"r of the best layer of {model}", html)


def _on_cortex(picture: Picture, entry: Entry, score: np.ndarray) -> Sheet:
    """The cortex of a surface or CIFTI; of a volume in a standard space, what lies below fsaverage5."""
    if picture.kind is not Volume:
        sheets = [part for part in picture.laid_out(score) if isinstance(part, Sheet)]
        if not sheets:
            raise ValueError(picture.missing or "there is no cortex in it")
        return sheets[0]
    space = str(dict(entry.context).get("space", ""))
    if not space.startswith("MNI"):
        raise ValueError(f"a volume in the space {space or 'of the participant'} lies on no known cortex; MNI does")
    scan = picture.laid_out(score)[0]
    assert not isinstance(scan, Sheet)
    folded = fsaverage5()
    values = np.concatenate([scan.at(mesh.coordinates) for mesh in folded])
    drawn = inflated_fsaverage5()
    return Sheet(values, (drawn[0], drawn[1]), np.concatenate([sulci(mesh) for mesh in folded]))


def _turning(sheet: Sheet, highest: float, title: str) -> str:
    """Both hemispheres beside each other as one page."""
    from nilearn.plotting import view_surf

    left, right = sheet.drawn
    reach = float(left.coordinates[:, 0].max() - right.coordinates[:, 0].min()) + _GAP
    points = np.vstack([left.coordinates, right.coordinates + np.array([max(reach, 0.0), 0, 0])])
    faces = np.vstack([left.faces, right.faces + left.size])
    # Newer versions draw with a package of their own, plotly with one that may not be there.
    engine = {"engine": "niivue"} if "engine" in inspect.signature(view_surf).parameters else {}
    made = view_surf(
        [points, faces], np.nan_to_num(sheet.values), bg_map=sheet.folds.astype(float), cmap="inferno", vmin=0,
        vmax=highest, symmetric_cmap=False, threshold=highest * _SHOWN_FROM, title=title, title_fontsize=16, **engine,
    )  # fmt: skip
    html = _ICON.sub('<link rel="icon" href="data:,">', str(made.get_standalone()))
    head = re.search(r"<head[^>]*>", html)
    if head is None:
        raise ValueError("nilearn wrote a page without a head, so that nothing can forbid it to fetch things")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return html[: head.end()] + policy + html[head.end() :]
