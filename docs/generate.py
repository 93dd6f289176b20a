"""Write docs/command-line.md from the parser and docs/api from the docstrings, so that they cannot disagree.

`make docs` runs it.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

from bidsdnn.arguments import LISTS, parser

API = Path(__file__).with_name("api")
PAGE = Path(__file__).with_name("command-line.md")
HEAD = """# Command line

`bidsdnn BIDS_DIR OUT_DIR {dnn,participant,group} [options]`

Flags of several words are understood with dashes and with underscores. Every option can also stand in a TOML file
(`--config-file`) under its name with underscores; flags win over the file, and a misspelt key is an error.
This page is generated from the parser by `make docs`.
"""
TAIL = f"""
## Lists

`bidsdnn --list WHAT` prints one of {", ".join(f"`{name}`" for name in LISTS)} and needs no dataset.
`bidsdnn --list layers --network resnet18` prints each layer's name, type and output shape; a star marks those that are
used without `--layer`.

## Exit status

| status | meaning |
|---|---|
| 0 | all went well |
| 1 | a participant failed and others did not, or a bug |
| 2 | the command line or the TOML file makes no sense |
| 16 | the input is not BIDS |
| 17 | the analysis level is unknown |
| 18 | the filters select no files |
| 65 | a file's content cannot be used |
| 66 | a file that is needed is not there |
| 73 | the output cannot be written |
| 130 | interrupted |

Where every asked participant failed for the same reason, the status is that reason's.

## Other commands

- `bidsdnn-demo DIR [--participants 3 --stimuli 48 --spaces volume --seed 0]` writes a BIDS dataset with planted truth.
- `bidsdnn-fetch NETWORK[@WEIGHTS]... [--dir DIR]` downloads weights for compute nodes without internet; there, set
  `TORCH_HOME=DIR`.
- `bidsdnn-convert IN OUT [--stimuli-dir stimuli]` writes `..._activations.h5` as DNNBrain's `NAME.act.h5` and
  `..._relmat.h5` as its `NAME.rdm.h5`, each with a `NAME.stim.csv`, and a `NAME.stim.csv` as `NAME_events.tsv`
  ([DNNBrain](dnnbrain.md)).
"""


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    for group in parser()._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not actions:
            continue
        lines += [f"\n## {group.title.capitalize() if group.title else ''}\n", "| option | meaning |", "|---|---|"]
        for action in actions:
            flags = [flag for flag in action.option_strings if "_" not in flag] or [action.dest]
            value = "" if action.nargs == 0 else action.metavar or ""
            value = " ".join(value) if isinstance(value, tuple) else value
            names = ", ".join(f"`{flag}`" for flag in flags)
            shown = f" `{value}`" if value and action.option_strings else ""
            lines.append(
                f"| {names}{shown} | {action.help} |".replace("DEFAULT|none|NAME|PATH", "DEFAULT, none, NAME or PATH")
            )
    return "\n".join(lines) + "\n" + TAIL


def api() -> dict[str, str]:
    """Text of each page of docs/api by its file's name."""
    made: dict[str, str] = runpy.run_path(str(Path(__file__).with_name("docstrings.py")))["pages"]()
    return made


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    API.mkdir(exist_ok=True)
    for old in API.glob("*.md"):
        old.unlink()
    for name, text in api().items():
        (API / name).write_text(text, encoding="utf-8")
