"""What selects rows of events and files of a dataset: the event filter's grammar, and the BIDS filter file.

The grammar, with missing values that are neither equal nor unequal to anything but ``'n/a'``::

    or    := and ('or' and)*
    and   := not ('and' not)*
    not   := 'not' not | '(' or ')' | test
    test  := column ('==' | '!=' | '<' | '<=' | '>' | '>=') value | column ['not'] 'in' list
    list  := '(' value (',' value)* [','] ')' | '[' value (',' value)* [','] ']'
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidsdnn.errors import ConfigError

QUERIES = ("bold", "events", "mask", "confounds")
MISSING = "n/a"
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<word>[A-Za-z_]\w*(?:\.\w+)*)
    | `(?P<quoted>[^`]+)`
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# A test's outcome is two masks, where it is true and where it is false; a row with a missing value is in
# neither.
_Masks = tuple[np.ndarray, np.ndarray]
_Test = Callable[[pd.DataFrame], _Masks]


@dataclass(frozen=True)
class EventFilter:
    """A question to each row of an events table.

    Parameters
    ----------
    text : str
        As it was written.
    columns : tuple of str
        The columns it asks about.
    """

    text: str
    columns: tuple[str, ...]
    _test: _Test

    def __call__(self, table: pd.DataFrame) -> np.ndarray:
        """Ask each row.

        Parameters
        ----------
        table : DataFrame

        Returns
        -------
        ndarray of bool, shape (rows,)

        Raises
        ------
        ConfigError
            If the table lacks a column.
        """
        return self._test(table)[0]


def event_filter(text: str) -> EventFilter:
    """Read an event filter, such as ``trial_type == 'object' and not response_time > 2``.

    Parameters
    ----------
    text : str
        Comparisons, ``in``, ``and``, ``or``, ``not`` and parentheses. Columns stand bare or in backticks,
        text in quotes. A comparison with a number reads the column as numbers. A row whose value is missing
        matches only ``== 'n/a'``.

    Returns
    -------
    EventFilter
        Called with a table, gives a boolean for each row.

    Raises
    ------
    ConfigError
        If the text is not in the grammar; names the position.
    """
    parser = _Parser(text)
    test = parser.either(depth=0)
    if parser.kind != "end":
        raise parser.error("expected `and`, `or` or the end")
    return EventFilter(text, tuple(dict.fromkeys(parser.columns)), test)


class _Parser:
    """Recursive descent over the tokens of one filter; each method reads one rule and returns its test."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: list[str] = []
        self.end = 0
        self.advance()

    def error(self, expected: str) -> ConfigError:
        rest = self.text[self.start :].strip()
        got = f"got {rest.splitlines()[0]!r}" if rest else "got the end"
        return ConfigError(f"--event-filter {self.text!r}: {expected} at position {self.start + 1}, {got}")

    def advance(self) -> None:
        """Read the next token into `kind`, `value` and `start`."""
        self.start = self.end + len(self.text[self.end :]) - len(self.text[self.end :].lstrip())
        if self.start == len(self.text):
            self.kind, self.value = "end", ""
            return
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            hint = "unclosed quote" if self.text[self.start] in "'\"`" else "unknown sign"
            if self.text[self.start] == "=":
                hint = "a single = ; write =="
            raise self.error(hint)
        self.kind, self.value = next((k, v) for k, v in match.groupdict().items() if v is not None)
        if self.kind == "word" and self.value in ("and", "or", "not", "in"):
            self.kind = "keyword"
        elif self.kind in ("single", "double"):
            self.kind, self.value = "text", re.sub(r"\\(.)", r"\1", self.value)
        elif self.kind == "quoted":
            self.kind = "word"
        self.end = match.end()

    def accept(self, kind: str, *values: str) -> str | None:
        """Take the token if it is one of these, and return it."""
        if self.kind != kind or (values and self.value not in values):
            return None
        value = self.value
        self.advance()
        return value

    def either(self, depth: int) -> _Test:
        tests = [self.both(depth)]
        while self.accept("keyword", "or"):
            tests.append(self.both(depth))
        return _join(tests, np.logical_or, np.logical_and)

    def both(self, depth: int) -> _Test:
        tests = [self.negation(depth)]
        while self.accept("keyword", "and"):
            tests.append(self.negation(depth))
        return _join(tests, np.logical_and, np.logical_or)

    def negation(self, depth: int) -> _Test:
        if depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} levels of parentheses and `not`")
        if self.accept("keyword", "not"):
            return _opposite(self.negation(depth + 1))
        if self.accept("sign", "("):
            test = self.either(depth + 1)
            if not self.accept("sign", ")"):
                raise self.error("expected `)`")
            return test
        return self.comparison()

    def comparison(self) -> _Test:
        column = self.accept("word")
        if column is None:
            raise self.error("expected a column's name")
        self.columns.append(column)
        negated = self.accept("keyword", "not") is not None
        if self.accept("keyword", "in"):
            tests = [_compare(column, "==", value) for value in self.values()]
            test = _join(tests, np.logical_or, np.logical_and)
            return _opposite(test) if negated else test
        sign = None if negated else self.accept("sign", *_COMPARISONS)
        if sign is None:
            raise self.error("expected `in`" if negated else "expected one of == != < <= > >= in, not in")
        if sign not in ("==", "!=") and self.kind == "text":
            raise self.error(f"expected a number after {sign}, text has no order")
        return _compare(column, sign, self.literal())

    def values(self) -> list[str | float]:
        closing = {"(": ")", "[": "]"}.get(self.accept("sign", "(", "[") or "")
        if closing is None:
            raise self.error("expected a list in ( ) or [ ]")
        found = [self.literal()]
        while self.accept("sign", ",") and not (self.kind == "sign" and self.value == closing):
            found.append(self.literal())
        if not self.accept("sign", closing):
            raise self.error(f"expected `,` or `{closing}`")
        return found

    def literal(self) -> str | float:
        number = self.accept("number")
        if number is not None:
            return float(number)
        text = self.accept("text")
        if text is None:
            raise self.error(f"expected a number or a text in quotes{self.quote_hint()}")
        return text

    def quote_hint(self) -> str:
        return f", as '{self.value}'," if self.kind == "word" else ""


def _join(tests: list[_Test], true: Callable[..., Any], false: Callable[..., Any]) -> _Test:
    def joined(table: pd.DataFrame) -> _Masks:
        outcomes = [test(table) for test in tests]
        return true.reduce([t for t, _ in outcomes]), false.reduce([f for _, f in outcomes])  # type: ignore[attr-defined]

    return joined


def _opposite(test: _Test) -> _Test:
    def negated(table: pd.DataFrame) -> _Masks:
        true, false = test(table)
        return false, true

    return negated


def _compare(name: str, sign: str, value: str | float) -> _Test:
    def compared(table: pd.DataFrame) -> _Masks:
        if name not in table:
            raise ConfigError(
                f"--event-filter: no column {name!r}; the events have {', '.join(map(str, table.columns))}"
            )
        column = table[name]
        known = column.notna().to_numpy(dtype=bool)
        if value == MISSING:
            # The one question that a missing value answers.
            return (~known, known) if sign == "==" else (known, ~known)
        if isinstance(value, str):
            content: np.ndarray = column.map(str).to_numpy(dtype=object)
        else:
            content = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        true = np.asarray(_COMPARISONS[sign](content, value), dtype=bool) & known
        return true, known & ~true

    return compared


def bids_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file: for each query, the entities that its files must have.

    Parameters
    ----------
    path : Path
        JSON such as ``{"bold": {"task": "things", "acquisition": null}}``. Queries are bold, events, mask and
        confounds; entities go by PyBIDS' names. A null asks for files without the entity, ``"*"`` for any
        value, a list for one of several.

    Returns
    -------
    dict of str to dict
        As read.

    Raises
    ------
    ConfigError
        If the file is no JSON, a query is unknown, or a value is neither text, number, null nor a list of
        them.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"--bids-filter-file {path}: {error.strerror or error}; give a readable JSON file") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--bids-filter-file {path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f'--bids-filter-file {path}: expected {{"bold": {{...}}}}, got a {type(content).__name__}')
    for query, entities in content.items():
        if query not in QUERIES:
            raise ConfigError(f"--bids-filter-file {path}: unknown query {query!r}; use {', '.join(QUERIES)}")
        if not isinstance(entities, dict):
            raise ConfigError(f"--bids-filter-file {path}: {query!r} is no object of entities and their values")
        for entity, value in entities.items():
            plain = value if isinstance(value, list) else [value]
            if not plain or any(isinstance(v, bool) or not isinstance(v, str | int | None) for v in plain):
                raise ConfigError(
                    f"--bids-filter-file {path}: {query}.{entity} is {value!r}; give a text, a number, null or a list"
                )
    return content
