"""Names of BIDS files: entities to paths and back, and the files that apply to another by inheritance.

A name is its entities in one legal order, a suffix and an extension. Names that others wrote are read
tolerantly; names that this program writes are checked strictly.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bidsdnn.errors import DataError, MissingInputError

# The order of the specification (1.11), with `model`, `contrast` and `stat`, which it lacks, before `desc`.
_ORDER = """
    sub tpl ses cohort sample task tracksys acq nuc voi ce trc stain rec dir run mod echo flip inv mt part
    proc hemi space split recording chunk atlas seg scale res den label model contrast stat desc
"""
ENTITIES = tuple(_ORDER.split())
# The specification's folders, and those of our output.
_FOLDERS = "anat beh dwi eeg emg fmap func ieeg meg micr motion mrs nirs perf pet figures group stimuli"
DATATYPES = tuple(_FOLDERS.split())
LABEL = re.compile(r"[0-9a-zA-Z+]+")
# fMRIPrep 1.x put the derivative's kind after the raw suffix: `_bold_space-T1w_preproc`, `_bold_confounds`,
# `_bold_space-fsnative.L.func.gii`, `_T1w_midthickness.L.surf.gii`.
_OLD_NAME = re.compile(
    r"_(bold|T1w)((?:_space-[0-9a-zA-Z+]+)?)"
    r"(?:_(preproc|brainmask|confounds|midthickness|inflated|pial|smoothwm|white))?(?=\.)"
)
# The hemisphere before the ending, as 1.x wrote it, or in front, as FreeSurfer does.
_OLD_SIDE = re.compile(r"\.([LR])(?=\.(?:func|surf|label|shape)\.gii$)")
_SIDE = re.compile(r"(?<=hemi-)[LR](?=[_.])|(?<=\.)[LR](?=\.(?:func|surf|label|shape)\.gii$)|^[lr](?=h\.)")
_FREESURFER_SIDE = re.compile(r"^([lr])h\.(?=sub-)")


def label(text: str) -> str:
    """Turn any text into a legal label: what is neither letter nor digit becomes a plus sign.

    Parameters
    ----------
    text : str
        As ``layer4.1.relu``.

    Returns
    -------
    str
        As ``layer4+1+relu``.

    Raises
    ------
    ValueError
        If nothing of the text can be in a label.
    """
    legal = re.sub(r"[^0-9a-zA-Z]+", "+", text).strip("+")
    if not legal:
        raise ValueError(f"text: expected a letter or digit in it, got {text!r}")
    return legal


def parse(path: Path | str) -> dict[str, str]:
    """Read a file's name.

    Parameters
    ----------
    path : Path or str
        Entities may stand in any order; names of fMRIPrep 1.x are read as what they are called today.

    Returns
    -------
    dict of str to str
        Entities by their short names (``sub``, ``ses``, ``run`` ...) as written, with ``suffix``,
        ``extension`` (``.nii.gz``, ``.dtseries.nii``) and, where the folder is one, ``datatype``. A name that
        is not made of entities has its whole stem as suffix.
    """
    folder, name = os.path.split(path)
    entities = _parse_name(name)
    datatype = os.path.basename(folder)  # noqa: PTH119 - as text: this runs for every file of a dataset
    return {**entities, "datatype": datatype} if datatype in DATATYPES else dict(entities)


@lru_cache(maxsize=2**17)
def _parse_name(name: str) -> Mapping[str, str]:
    side = _OLD_SIDE.search(name) or _FREESURFER_SIDE.search(name)
    if side:
        name = name[: side.start()] + name[side.end() :]
    stem, dot, extension = _OLD_NAME.sub(_new_name, name).partition(".")
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not (key and dash and value):
            entities, suffix = {}, stem
            break
        entities[key] = value
    if side and entities:
        entities["hemi"] = side.group(1).upper()
    return {**entities, "suffix": suffix, "extension": dot + extension}


def _new_name(match: re.Match[str]) -> str:
    raw, space, kind = match.groups()
    now = {
        None: raw,
        "preproc": f"desc-preproc_{raw}",
        "brainmask": "desc-brain_mask",
        "confounds": "desc-confounds_timeseries",
    }
    return f"{space}_{now.get(kind, kind)}"


def build(
    entities: Mapping[str, object],
    *,
    suffix: str,
    extension: str,
    datatype: str | None = None,
    root: Path | None = None,
) -> Path:
    """Write a file's name: the inverse of `parse`.

    Parameters
    ----------
    entities : mapping
        Short names to labels; None leaves an entity out. Any order.
    suffix, extension : str
        As ``statmap`` and ``.nii.gz``.
    datatype : str, optional
        The innermost folder, as ``func``.
    root : Path, optional
        Dataset that the path starts with; by default the path is relative to the dataset.

    Returns
    -------
    Path
        ``sub-<label>[/ses-<label>]/<datatype>/<name>``, ``tpl-<label>/<datatype>/<name>``, or
        ``<datatype>/<name>`` where there is neither.

    Raises
    ------
    ValueError
        If an entity is unknown, or a label, the suffix or the extension is illegal.
    """
    kept = {key: str(value) for key, value in entities.items() if value is not None}
    for key, value in kept.items():
        if key not in ENTITIES:
            raise ValueError(f"entities: expected some of {', '.join(ENTITIES)}; got {key!r}")
        if not LABEL.fullmatch(value):
            raise ValueError(f"entities: expected letters, digits and + in {key}, got {value!r}")
    if not re.fullmatch(r"[0-9a-zA-Z]+", suffix):
        raise ValueError(f"suffix: expected letters and digits, got {suffix!r}")
    if not re.fullmatch(r"(\.[0-9a-zA-Z]+)+", extension):
        raise ValueError(f"extension: expected a dot first, as in .nii.gz, got {extension!r}")
    if datatype is not None and datatype not in DATATYPES:
        raise ValueError(f"datatype: expected one of {', '.join(DATATYPES)}; got {datatype!r}")
    pairs = [f"{key}-{kept[key]}" for key in ENTITIES if key in kept]
    # A template's or a group's file has no folder of a session, so `ses` makes one below `sub` only.
    folders = [f"{key}-{kept[key]}" for key in (("sub", "ses") if "sub" in kept else ("tpl",)) if key in kept]
    return (root or Path()).joinpath(
        *folders, *([datatype] if datatype else []), "_".join([*pairs, suffix]) + extension
    )


def same(key: str, one: str | None, other: str | None) -> bool:
    """Whether two labels of an entity say the same; indices are compared as numbers, so run 01 is run 1.

    Parameters
    ----------
    key : str
        Short name of the entity.
    one, other : str or None
        Labels; None where a name lacks the entity.

    Returns
    -------
    bool
    """
    if key in ("run", "echo", "res") and one and other and one.isdecimal() and other.isdecimal():
        return int(one) == int(other)
    return one == other


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which ``run-2`` comes before ``run-10``."""
    parts = re.split(r"([0-9]+)", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def inherited(path: Path, *, root: Path, suffix: str, extension: str) -> list[Path]:
    """Files that apply to another by the inheritance principle.

    They lie in its folder or above it, up to the dataset's root, and each of their entities is one of its
    own.

    Parameters
    ----------
    path : Path
        A file below `root`; it need not exist.
    root : Path
        Top folder of the dataset.
    suffix, extension : str
        Of the files to look for, as ``events`` and ``.tsv``.

    Returns
    -------
    list of Path
        Nearest first; in one folder, the one with the most entities first.

    Raises
    ------
    ValueError
        If `path` does not lie below `root`.
    """
    if not path.is_relative_to(root):
        raise ValueError(f"path: expected a file below {root}, got {path}")
    own = parse(path)
    found: list[Path] = []
    for folder in path.parents:
        applying = []
        for name in _listed(folder):
            if not (name.endswith(f"_{suffix}{extension}") or name == suffix + extension) or name.startswith("."):
                continue
            theirs = _entities(parse(name))
            if parse(name)["suffix"] == suffix and all(same(k, v, own.get(k)) for k, v in theirs.items()):
                applying.append((-len(theirs), name))
        found += [folder / name for _, name in sorted(applying)]
        if folder == root:
            break
    return found


def _listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def hemisphere(path: Path, side: str) -> Path:
    """The file of one hemisphere, by the name of either one's.

    Parameters
    ----------
    path : Path
        Its name says the side as ``hemi-L``, ``.L.func.gii`` or ``lh.``.
    side : str
        ``L`` or ``R``.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the name says no side.
    """
    name, n = _SIDE.subn(lambda found: side if found.group().isupper() else side.lower(), path.name, count=1)
    if not n:
        raise ValueError(f"path: expected hemi-L, .L.func.gii or lh. in the name, got {path.name}")
    return path.with_name(name)


def _entities(parsed: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in parsed.items() if key not in ("suffix", "extension", "datatype")}


def entities_of(path: Path | str) -> dict[str, str]:
    """Entities of a file's name alone, without suffix, extension and datatype."""
    return _entities(parse(path))


def sidecar(path: Path, *, root: Path) -> dict[str, Any]:
    """Metadata of a file: the JSON files that apply to it, merged, the nearest one winning.

    Parameters
    ----------
    path : Path
        A file below `root`; it need not exist.
    root : Path
        Top folder of the dataset.

    Returns
    -------
    dict
        Empty where no JSON file applies.

    Raises
    ------
    DataError
        If an applying file is no JSON object.
    MissingInputError
        If an applying file is a DataLad link whose content is not there.
    """
    parsed = parse(path)
    # fMRIPrep 20 wrote `_bold.dtseries.json` beside `_bold.dtseries.nii`.
    kind = re.match(r"\.[a-z]+(?=\.(?:nii|gii)$)", parsed["extension"])
    merged: dict[str, Any] = {}
    for extension in (*([f"{kind.group()}.json"] if kind else []), ".json"):
        for found in reversed(inherited(path, root=root, suffix=parsed["suffix"], extension=extension)):
            merged |= read_json(found)
    return merged


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the input.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    DataError
        If the file is no JSON object.
    MissingInputError
        If it is not there, or is a DataLad link whose content is not there.
    """
    require(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({str(error).splitlines()[0]}); mend the file") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a JSON {type(content).__name__}, expected an object {{...}}; mend the file")
    return content


def require(path: Path) -> Path:
    """Give a file back if its content is there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Path

    Raises
    ------
    MissingInputError
        If the file is not there, or is a DataLad link whose content is not there.
    """
    if path.is_file():
        return path
    if path.is_symlink():
        raise MissingInputError(f"{path}: its content is not here; run `datalad get {path.name}` in its folder")
    raise MissingInputError(f"{path}: file not found; check the path")
