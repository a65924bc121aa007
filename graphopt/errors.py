"""Errors for people: what happened, where, and what to do about it.

GraphoptError              exit code 70: a bug in graphopt
├── UsageError             2: unknown flag, rule, target, input; a near name is suggested
├── ModelError             3: the model, its external data or the given data is bad
├── UnequalError           1: checked and not equal, or a condition that was asked for does not hold
├── InconclusiveError      4: the check could not decide
├── RuntimeCrash           5: the runtime crashed or timed out while checking
└── RuleError              6: a rule raised, cycled or wrote an invalid graph

Every code stands in docs/errors.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 2000


class GraphoptError(Exception):
    """An error with a stable code, a place and a hint.

    `code` is `GO` and three digits; `where` says file and node; `hint` says what to do. `str(error)` is the
    three-line form that the command line prints.
    """

    exit_code = 70

    def __init__(self, code: str, message: str, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        # A bug of ours comes with a traceback.
        lines = [f"error[{self.code}]: {self.message if self.exit_code == 70 else _one_line(self.message)}"]
        if self.where:
            lines.append(f"  --> {_one_line(self.where)}")
        if self.hint:
            lines.append(f"  hint: {_one_line(self.hint)}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries; the default would call __init__ with the message alone.
        return type(self), (self.code, self.message, self.where, self.hint)


class UsageError(GraphoptError):
    exit_code = 2


class ModelError(GraphoptError):
    exit_code = 3


class UnequalError(GraphoptError):
    exit_code = 1


class InconclusiveError(GraphoptError):
    exit_code = 4


class RuntimeCrash(GraphoptError):
    exit_code = 5


class RuleError(GraphoptError):
    exit_code = 6


def _one_line(text: str) -> str:
    """`text` as a terminal may show it: what a model calls its nodes may hold line breaks, escape sequences."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return printable(text).replace("\n", " ")


def printable(text: str) -> str:
    """`text` with its lines, and with escapes for all else that a terminal would not show but obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def near(name: str, known: Iterable[str]) -> str:
    """A hint that lists the known names closest to `name`, or all of them when none is close."""
    names = sorted(known)
    close = close_names(name, names, 0.5)
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(names) if names else ""


def close_names(name: str, known: Iterable[str], cutoff: float = 0.75) -> list[str]:
    """Up to three of the known names that `name` is likely a slip of, the likeliest first."""
    return difflib.get_close_matches(name, sorted(known), n=3, cutoff=cutoff)
