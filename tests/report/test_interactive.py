from __future__ import annotations

import re
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest

from bidsdnn.report.interactive import POLICY
from bidsdnn.report.page import page
from bidsdnn.spaces import write_nifti
from tests.report.chromium import PROGRAM, Chromium
from tests.report.conftest import ENTITIES, LAYERS, SIDECAR


@pytest.fixture
def brain(output):
    """A map whose left half is best predicted by its first layer."""
    data = np.zeros((20, 24, 20, 3))
    data[:10, ..., 0] = 0.6
    output.map(data, "pearsonr", "encoding", SIDECAR, **ENTITIES | {"space": "MNI152NLin2009cAsym"}, model="m")
    write_nifti(
        output.entries[0].path, data, np.array([[9.0, 0, 0, -90], [0, 9, 0, -126], [0, 0, 9, -72], [0, 0, 0, 1]])
    )
    return output


def made(output, log, *, interactive=True):
    path = output.folder / "sub-01.html"
    page(output.entries, path, figures_dir=output.folder / "sub-01" / "figures", title="x", level="participant",
         log=log, interactive=interactive)  # fmt: skip
    html = path.read_text(encoding="utf-8")
    links = [unescape(link) for link in re.findall(r'<a href="(sub-01/figures/[^"]+)"', html)]
    return html, [output.folder / unquote(link) for link in links]


def test_maps_turn_only_where_it_was_asked_for(brain, log):
    assert made(brain, log, interactive=False)[1] == []
    assert not list(brain.folder.rglob("*_view.html"))


def test_a_map_that_turns_is_linked_and_may_fetch_nothing(brain, log, tmp_path):
    _, (view,) = made(brain, log)
    html = view.read_text(encoding="utf-8")
    assert f'content="{POLICY}"' in html and html.index(POLICY) < html.index("<script")
    assert not re.search(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//", html)
    assert 1e5 < view.stat().st_size < 15e6
    if PROGRAM is not None:
        with Chromium(tmp_path / "profile") as browser:
            browser.open(view)
            assert browser.requests == [view.resolve().as_uri()]


def test_a_volume_that_lies_on_no_known_cortex_is_named(output, log):
    output.map(np.random.default_rng(0).random((5, 5, 5, 3)), "pearsonr", "encoding", {"Layers": LAYERS},
               **ENTITIES | {"space": "T1w"}, model="m")  # fmt: skip
    html, views = made(output, log)
    assert views == [] and "a volume in the space T1w lies on no known cortex; MNI does" in html
