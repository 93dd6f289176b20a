"""Remake the pictures of the reports: ``python docs/screenshots.py [OUTPUT_FOLDER]``, by default that of ``make demo``.

Needs Chromium; the pictures go to ``docs/images``.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.report.chromium import Chromium  # noqa: E402

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = (1300, 1000), (390, 844)
# Name of a picture, page, width and height of the window, section that is at its top, dark or light.
PICTURES = [
    ("participant-desktop", "sub-01", DESKTOP, "", False),
    ("participant-phone", "sub-01", PHONE, "", False),
    ("participant-maps", "sub-01", DESKTOP, "maps", False),
    ("participant-scores", "sub-01", DESKTOP, "scores", False),
    ("participant-geometry", "sub-01", DESKTOP, "geometry", False),
    ("participant-quality", "sub-01", DESKTOP, "quality", False),
    ("group-desktop", "group", DESKTOP, "", False),
    ("group-phone", "group", PHONE, "", True),
    ("group-dark", "group", DESKTOP, "maps", True),
    ("group-methods", "group", DESKTOP, "methods", False),
    ("index-desktop", "index", DESKTOP, "", False),
]


def shrunk(picture: bytes) -> bytes:
    """The same picture in fewer bytes; every colour stays, for colours have meanings."""
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(small, "png", optimize=True)
    return small.getvalue()


def main(out: Path) -> None:
    """Take every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as browser:
        for name, page, (width, height), section, dark in PICTURES:
            browser.open(out / f"{page}.html", width=width, height=height, dark=dark)
            if section:
                browser.run(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
            (IMAGES / f"{name}.png").write_bytes(shrunk(browser.screenshot()))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo" / "derivatives" / "bidsdnn"))
