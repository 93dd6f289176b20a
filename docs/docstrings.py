"""The API pages, made from the source: numpydoc docstrings and signatures as Markdown. Nothing is imported.

What has arguments and no section Parameters is for other modules of the package, and is not on the pages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

ROOT = Path(__file__).parents[1] / "bidsdnn"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Pages of several modules, or packages, by name; each module of `methods` has a page of its own.
PAGES = {
    "loading": ["loading"],
    "nouns": ["patterns", "result", "stimuli", "bids.dataset", "bids.contents", "bids.runs", "bids.derivatives"],
    "analyses": [
        "encoding.analysis",
        "encoding.partition",
        "decoding.analysis",
        "geometry",
        "searchlights",
        "analyses",
    ],
    "spaces": ["spaces"],
    "networks": ["networks"],
    "probes": ["probes"],
    "groupmodels": ["groupmodels"],
}
ABOUT = {
    "loading": "A finished output folder, seen from Python",
    "nouns": "The nouns: tables, results, stimuli, datasets, the output dataset",
    "analyses": "The analyses of the command line",
    "spaces": "What a column of a brain is: volumes, surfaces, CIFTI, parcels",
    "networks": "Networks, where they come from, and their activations",
    "probes": "What a unit, a layer or a voxel of the brain responds to",
    "groupmodels": "Models fitted to several participants at once",
}


@dataclass(frozen=True)
class Thing:
    """One documented function or class.

    Parameters
    ----------
    module : str
        Dotted, without ``bidsdnn``.
    node : ast.FunctionDef or ast.ClassDef
    owner : str
        Class that a method belongs to; empty for others.
    """

    module: str
    node: ast.FunctionDef | ast.ClassDef
    owner: str = ""

    @property
    def name(self) -> str:
        """As it is called: of a method with its class."""
        return f"{self.owner}.{self.node.name}".lstrip(".")

    @property
    def doc(self) -> str:
        """The docstring without its indentation."""
        return cleandoc(ast.get_docstring(self.node) or "")

    @property
    def decorators(self) -> set[str]:
        """Names of the decorators."""
        return {ast.unparse(one).split("(")[0].split(".")[-1] for one in self.node.decorator_list}

    @property
    def arguments(self) -> list[str]:
        """Arguments with their defaults, as they are written; of a dataclass its fields."""
        if isinstance(self.node, ast.ClassDef):
            own = [one for one in self.node.body if isinstance(one, FUNCTIONS) and one.name == "__init__"]
            fields = "dataclass" in self.decorators or "NamedTuple" in map(ast.unparse, self.node.bases)
            return _arguments(own[0].args)[1:] if own else _fields(self.node) if fields else []
        bound = self.owner and "staticmethod" not in self.decorators
        return _arguments(self.node.args)[1 if bound else 0 :]

    @property
    def names(self) -> list[str]:
        """Names of the arguments."""
        return [one.split("=")[0].lstrip("*") for one in self.arguments if one not in ("*", "/")]

    @property
    def returns(self) -> str:
        """What is annotated to be returned; empty where nothing is."""
        given = self.node.returns if isinstance(self.node, FUNCTIONS) else None
        return "" if given is None or ast.unparse(given) == "None" else ast.unparse(given)

    @property
    def is_value(self) -> bool:
        """Whether it is read without being called."""
        return bool(self.decorators & {"property", "cached_property"})


def _arguments(given: ast.arguments) -> list[str]:
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    found = [_with_default(one, default) for one, default in zip(positional, defaults, strict=True)]
    if given.vararg:
        found.append(f"*{given.vararg.arg}")
    elif given.kwonlyargs:
        found.append("*")
    found += [_with_default(one, default) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*found, *([f"**{given.kwarg.arg}"] if given.kwarg else [])]


def _with_default(one: ast.arg, default: ast.expr | None) -> str:
    return one.arg if default is None else f"{one.arg}={ast.unparse(default)}"


def _fields(node: ast.ClassDef) -> list[str]:
    """Public fields of a dataclass or named tuple, without those that all instances share."""
    found = []
    for one in node.body:
        if not isinstance(one, ast.AnnAssign) or "ClassVar" in ast.unparse(one.annotation):
            continue
        if one.value is not None and "init=False" in ast.unparse(one.value):
            continue
        name = ast.unparse(one.target)
        shown = "" if one.value is None else "=..." if isinstance(one.value, ast.Call) else f"={ast.unparse(one.value)}"
        found += [] if name.startswith("_") else [name + shown]
    return found


def sections(doc: str) -> dict[str, str]:
    """Take a numpydoc docstring apart.

    Parameters
    ----------
    doc : str
        Without indentation.

    Returns
    -------
    dict of str to str
        Text by heading; what comes before the first heading has an empty one.
    """
    parts = re.split(r"^([A-Z][\w ]+)\n-{3,}\n", doc, flags=re.M)
    return {
        "": parts[0].strip(),
        **{title: text.rstrip() for title, text in zip(parts[1::2], parts[2::2], strict=True)},
    }


def entries(text: str) -> list[tuple[str, str, str]]:
    """Names, type and description of each entry of a section, as of Parameters.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of (str, str, str)
        Several names of one entry are joined by commas.
    """
    found: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            found.append((names, kind, ""))
        elif line.strip() and found:
            names, kind, about = found[-1]
            found[-1] = (names, kind, f"{about} {line.strip()}".strip())
    return found


def things(module: str) -> list[Thing]:
    """Documented functions, classes and methods of a module or of all modules of a package, in their order.

    Parameters
    ----------
    module : str
        Dotted, without ``bidsdnn``.

    Returns
    -------
    list of Thing
    """
    return [thing for path in _paths(module) for thing in _of_file(path) if is_documented(thing)]


def is_documented(thing: Thing) -> bool:
    """Whether a thing is on the pages: it has a docstring, and a section Parameters if it has arguments."""
    parts = sections(thing.doc)
    return bool(thing.doc) and (thing.is_value or not thing.names or "Parameters" in parts or bool(thing.owner))


def _paths(module: str) -> list[Path]:
    place = ROOT.joinpath(*module.split("."))
    return (
        sorted(place.rglob("*.py")) if place.is_dir() else [one for one in [place.with_suffix(".py")] if one.is_file()]
    )


def dotted(path: Path) -> str:
    """A module's name without ``bidsdnn``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _of_file(path: Path) -> Iterator[Thing]:
    module = dotted(path)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield Thing(module, node)
            for one in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(one, FUNCTIONS) and not one.name.startswith("_"):
                    yield Thing(module, one, node.name)


def _about(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _code(text: str) -> str:
    """Code as Markdown has it."""
    return (
        re.sub(r"``([^`]+)``", r"`\1`", text).replace("<", "&lt;")
        if "<" in text
        else re.sub(r"``([^`]+)``", r"`\1`", text)
    )


def _shown(thing: Thing) -> str:
    """One thing in Markdown."""
    parts = sections(thing.doc)
    level = "####" if thing.owner else "###"
    call = thing.name if thing.is_value else f"{thing.name}({', '.join(thing.arguments)})"
    # A class without arguments of its own is a description of others, or is made by a function.
    bare = isinstance(thing.node, ast.ClassDef) and not thing.arguments
    lines = [f"{level} `{thing.name}`", "", *([] if bare else [f"```\n{call}\n```", ""]), _code(parts.pop(""))]
    for title, text in parts.items():
        if title in ("Parameters", "Returns", "Yields", "Raises", "Attributes"):
            rows = []
            for names, kind, about in entries(text):
                shown = f"`{names}`" if kind or title in ("Parameters", "Attributes") else f"*{_code(names)}*"
                rows.append(
                    f"- {shown}" + (f" ({_code(kind)})" if kind else "") + (f": {_code(about)}" if about else "")
                )
            lines += ["", f"**{title}**", "", *rows]
        else:
            lines += ["", f"**{title}**", "", _code(text)]
    return "\n".join(lines) + "\n"


def page(name: str, modules: list[str]) -> str:
    """The text of one page; empty where its modules are not there.

    Parameters
    ----------
    name : str
        Of the page.
    modules : list of str
        Dotted, without ``bidsdnn``.

    Returns
    -------
    str
    """
    parts = []
    for path in [one for module in modules for one in _paths(module)]:
        found = [thing for thing in _of_file(path) if is_documented(thing)]
        if found:
            parts.append(f"## bidsdnn.{dotted(path)}\n\n{_code(_about(path))}\n\n" + "\n".join(map(_shown, found)))
    return (
        f"# {name}\n\n[All pages](index.md). Made from the docstrings by `make docs`.\n\n" + "\n".join(parts)
        if parts
        else ""
    )


def pages() -> dict[str, str]:
    """All API pages.

    Returns
    -------
    dict of str to str
        Text by the name of the file in ``docs/api``.
    """
    methods = {
        f"methods.{one.stem}": [f"methods.{one.stem}"]
        for one in sorted((ROOT / "methods").iterdir())
        if not one.name.startswith("_") and (one.is_dir() or one.suffix == ".py")
    }
    made = {name: page(name, modules) for name, modules in {**PAGES, **methods}.items()}
    made = {name: text for name, text in made.items() if text}
    lines = [
        "# API",
        "",
        "Made from the docstrings by `make docs`; worked examples are on [From Python](../python.md).",
        "",
    ]
    lines += [f"- [{name}]({name}.md): {ABOUT[name]}" for name in PAGES if name in made]
    lines += ["", "Arrays in, arrays out:", ""]
    for name, (module,) in methods.items():
        if name in made:
            paths = _paths(module)
            first = next(path for path in paths if path.name == "__init__.py") if len(paths) > 1 else paths[0]
            lines.append(f"- [{name}]({name}.md): {_code(_about(first).splitlines()[0])}")
    return {"index.md": "\n".join(lines) + "\n", **{f"{name}.md": text for name, text in made.items()}}
