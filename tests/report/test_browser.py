"""Reports in a real browser: what no test of their text can see."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from bidsdnn.report.page import page
from tests.report.chromium import PROGRAM, Chromium
from tests.report.conftest import Output, participant

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed (apt-get install chromium)")
EVIL = "<img src=x onerror=alert(1)>"
DESKTOP, PHONE = 1300, 390
# Contrast of every text outside drawings with what lies behind it; the least, and whose it is.
CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (rgb) => [.2126, .7152, .0722].reduce((sum, w, i) => sum + w * linear(rgb[i] / 255), 0);
  const clear = (e) => (parse(getComputedStyle(e).backgroundColor)[3] ?? 1) < 1;
  let least = [99, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const owner = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || owner.closest("svg, script, style, .skip") || !owner.checkVisibility()) continue;
    let behind = owner;
    while (behind !== document.body && clear(behind)) behind = behind.parentElement;
    const a = light(parse(getComputedStyle(owner).color));
    const b = light(parse(getComputedStyle(behind).backgroundColor));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, text];
  }
  return least;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> Path:
    """A page whose region, stimuli and network have a name that is a tag."""
    from bidsdnn.report.entries import Log

    output = Output(tmp_path_factory.mktemp("evil"))
    participant(output, {EVIL: [0.4, 0.2, 0.1], "late": [0.1, 0.2, 0.3]})
    for entry in output.entries:
        if "_arrays" in entry.sidecar:
            names = np.array([f"{EVIL}{i}" for i in range(12)])
            entry.sidecar["_arrays"]["_items"] = names
    log = Log("x", EVIL, EVIL, "2026", 1.0, warnings=(EVIL,), errors=(EVIL,), tracebacks=(EVIL,))
    path = output.folder / "evil.html"
    page(output.entries, path, figures_dir=output.folder / "figures", title=EVIL, level="participant", log=log)
    return path


@pytest.fixture(params=["index", "sub-01", "group"])
def report(request, finished) -> Path:
    return finished.out / f"{request.param}.html"


def test_nothing_is_complained_of_and_nothing_is_asked_for(browser, report):
    browser.open(report)
    assert browser.complaints == []
    assert browser.requests == [report.resolve().as_uri()]


def test_links_lead_somewhere(browser, report):
    browser.open(report)
    links = browser.run("[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))")
    assert len(links) > 3
    for link in links:
        parts = urlsplit(link)
        if link.startswith("#"):
            assert browser.run(f"document.getElementById({unquote(link[1:])!r}) !== null"), link
        elif parts.scheme:
            assert link.startswith("https://doi.org/"), link
        else:
            assert (report.parent / unquote(parts.path)).exists(), link


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_it_fits_the_window_and_can_be_read(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 27)" if dark else "rgb(253, 254, 254)")
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    least, text = browser.run(CONTRAST)
    assert least >= 4.5, text
    assert browser.run("document.documentElement.scrollWidth") <= width
    picture = browser.screenshot()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_every_picture_has_a_text(browser, report):
    browser.open(report)
    silent = "[...document.querySelectorAll('svg, img')].filter((e) => !(e.getAttribute('aria-label') || e.alt)).length"
    assert browser.run(silent) == 0


def test_tables_sort_by_mouse_and_by_keys(browser, finished):
    browser.open(finished.out / "group.html")
    browser.run(
        "{ const t = [...document.querySelectorAll('table')].find((t) => /mean r/.test(t.tHead.textContent));"
        " t.closest('details').open = true; t.id = 'numbers';"
        " const i = [...t.tHead.rows[0].cells].findIndex((c) => c.textContent === 'mean r');"
        " t.tHead.rows[0].cells[i].querySelector('button').id = 'by'; window.column = i; }"
    )
    column = (
        "[...document.querySelectorAll('#numbers tbody tr')].map((r) => +r.cells[column].dataset.key"
        " || +r.cells[column].textContent)"
    )
    sort = "document.querySelector('#by').closest('th').getAttribute('aria-sort')"
    before = browser.run(column)
    assert browser.run(sort) is None and len(before) > 8
    browser.click("#by")
    assert browser.run(sort) == "descending" and browser.run(column) == sorted(before, reverse=True)
    browser.press("Enter")
    assert browser.run(sort) == "ascending" and browser.run(column) == sorted(before)
    browser.press("Tab")
    assert browser.run("document.activeElement.closest('th') !== null && document.activeElement.id !== 'by'")
    browser.press(" ")
    assert browser.run(sort) is None
    assert browser.run("document.querySelectorAll('#numbers [aria-sort]').length") == 1


def test_tables_can_be_filtered(browser, finished):
    browser.open(finished.out / "group.html")
    browser.run(
        "{ const f = document.querySelector('input[type=search]'); f.closest('details').open = true; f.id = 'filter';"
        " f.closest('details').querySelector('table').id = 'numbers'; }"
    )
    visible = "[...document.querySelectorAll('#numbers tbody tr')].filter((r) => r.checkVisibility())"
    every = browser.run(f"{visible}.length")
    browser.click("#filter")
    browser.type("late conv1")
    some = browser.run(f"{visible}.map((r) => r.textContent)")
    assert 0 < len(some) < every and all("late" in row and "conv1" in row for row in some)
    said = browser.run(
        "document.querySelector('#filter').closest('details').querySelector('[role=status]').textContent"
    )
    assert said == f"{len(some)} of {every} rows"


def test_the_reader_may_choose_light_or_dark(browser, finished):
    browser.open(finished.out / "sub-01.html", dark=True)
    behind = "getComputedStyle(document.body).backgroundColor"
    browser.click(".theme")
    assert browser.run(behind) == "rgb(253, 254, 254)"
    assert browser.run("document.querySelector('.theme').textContent") == "Dark page"
    browser.press("Enter")
    assert browser.run(behind) == "rgb(18, 22, 27)"


def test_it_is_printed_on_light_paper_without_what_paper_cannot_do(browser, finished):
    browser.open(finished.out / "sub-01.html", dark=True)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF") and 3 <= pdf.count(b"/Type /Page\n") < 60
    browser.call("Emulation.setEmulatedMedia", media="print",
                 features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(253, 254, 254)"
    hidden = "[...document.querySelectorAll('nav, .theme, input')].some((e) => e.checkVisibility())"
    assert browser.run(hidden) is False
    cut = "[...document.querySelectorAll('.scroll, pre')].some((e) => getComputedStyle(e).overflowY !== 'visible')"
    assert browser.run(cut) is False


def test_names_stay_text(browser, evil):
    browser.open(evil)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.complaints == [] and browser.requests == [evil.resolve().as_uri()]
    assert not [e for e in browser.events if e.get("method") == "Page.javascriptDialogOpening"]
    assert browser.run("[...document.images].filter((e) => e.getAttribute('src') === 'x').length") == 0
    assert browser.run("document.body.innerText").count(EVIL) > 5
    assert browser.run("[...document.querySelectorAll('svg text')].some((e) => e.textContent.includes('<img'))")
