"""The design as data: who may import whom, and who owns which heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bidsdnn

ROOT = Path(bidsdnn.__file__).parent
# Rows from the top; a module imports from rows below its own, or from its own package.
ROWS = [
    {"__main__", "commands"},
    {"cli"},
    {"arguments"},
    {"pipeline", "demo", "listing", "loading"},
    {"brainlayer"},
    {"readouts"},
    {"predicted", "groupmodels"},
    {"published", "measured", "analysed", "inside"},
    {"study", "checking"},
    {"plan", "reports", "citations", "grouplevel", "similarities"},
    {"precomputed"},
    {"responses", "features", "trials", "grouprsa", "groupdecoding", "grouplayers", "grouppairs", "groupmaps"},
    {"series", "groupeffects"},
    {"conditions", "across_runs"},
    {"single_trials", "grouptables", "grouprdms"},
    {"recordings", "computed", "components"},
    {"activations", "analyses", "design", "journal"},
    {"probes"},
    {"extraction", "cuts", "nuisance", "searchlights", "encoding", "decoding", "clips"},
    {"folding"},
    {"geometry"},
    {"bids", "report", "networks"},
    {"patterns", "result"},
    {"stimuli", "spaces"},
    {"config"},
    {"config_tables", "presets"},
    {"lookup", "parallel"},
    {"errors"},
    {"methods"},
]
OWNERS = {
    "argparse": {"cli", "arguments", "commands"},
    "tomllib": {"config"},
    "tomli_w": {"config"},
    "pydantic": {"config", "config_tables"},
    "joblib": {"parallel"},
    "torch": {"networks", "methods", "probes"},
    "torchvision": {"networks"},
    "nibabel": {"spaces", "demo.surface_files"},
    "matplotlib": {"report", "probes.pictures"},
    "jinja2": {"report"},
    "PIL": {"stimuli", "networks", "demo"},
    "av": {"stimuli"},
    "soundfile": {"stimuli"},
    "bids": {"bids.dataset"},
    "h5py": {"bids.arrays", "bids.dnnbrain.arrays", "bids.precomputed.parts", "networks.store", "networks.work"},
    "nilearn": {"methods", "spaces", "bids", "report", "demo"},
}
MODULES = sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "bidsdnn" else {base}
    return found


def row(top: str) -> int:
    return next(number for number, names in enumerate(ROWS) if top in names)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path):
    top = dotted(path).split(".")[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "bidsdnn" or len(parts) < 2 or parts[1] in (top, "__version__"):
            continue
        assert top and row(parts[1]) > row(top), f"{dotted(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_libraries_have_owners(path):
    module = dotted(path)
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or {module, module.split(".")[0]} & owners, f"{module} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_command_line_imports_nothing_heavy():
    heavy = [
        "torch",
        "nilearn",
        "matplotlib",
        "bids",
        "h5py",
        "pandas",
        "numpy",
        "nibabel",
        "pydantic",
        "sklearn",
        "scipy",
    ]
    code = f"import sys, bidsdnn.cli; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_nouns_are_there():
    for name in bidsdnn.__all__:
        assert getattr(bidsdnn, name)
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        _ = bidsdnn.Manager
