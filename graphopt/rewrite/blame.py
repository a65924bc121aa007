"""Where in foreign code an error came from, and what it says: file, line, words, hint."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any


class Mistake(TypeError):
    """A rule names or returns what cannot be; `hint` says what to change, `method` what of the rule is to blame."""

    def __init__(self, message: str, hint: str = "", method: str = "rewrite") -> None:
        super().__init__(message)
        self.hint = hint
        self.method = method


def line_of(thing: Any) -> str:
    """File and line where a class or a function begins; empty where there is no source."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1] or 1}"
    except (OSError, TypeError):
        return ""


def raised_in(error: BaseException | None, kind: type) -> str:
    """File and line of the innermost call in the file of a class when `error` was raised; empty for none."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else ""


def raised_on_import(error: BaseException, ours: str) -> str:
    """File and line that made the import of foreign code fail: of its own folder, not of what it imports from others.

    `ours` is the file that imports. Empty where nothing of the foreign code was run.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (ours, importlib.__file__) and not frame.filename.startswith("<")
    ]
    if not frames:
        return ""
    folder = frames[0][0].parent
    own = [(path, line) for path, line in frames if path.parent == folder or folder in path.parents]
    path, line = own[-1]
    return f"{path}:{line}"


def said(error: BaseException) -> str:
    """What an error says, after its kind unless it is a Mistake, which says it all."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return text if isinstance(error, Mistake) else f"{type(error).__name__}: {text}" if text else type(error).__name__


def hint_of(error: BaseException | None, otherwise: str) -> str:
    """What to change: as a Mistake says, else `otherwise`."""
    return error.hint if isinstance(error, Mistake) else otherwise
