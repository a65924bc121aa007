"""What a project says of graphopt once for all: the table `[tool.graphopt]` of its pyproject.toml, or graphopt.toml."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError

OWN_FILE = "graphopt.toml"
_SHARED_FILE = "pyproject.toml"
_LONGEST = 1 << 20
_FILES = (".py", ".json", ".npz")
"""What a path ends with: a relative one begins at the file that it stands in, wherever graphopt is run."""


@dataclass(frozen=True)
class Settings:
    """The table that was found, and the file it stands in (None: there is none)."""

    path: Path | None = None
    table: dict[str, Any] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[str, ...]:
        """Files and modules with rules."""
        found = self.table.get("rules")
        return tuple(found) if isinstance(found, list) else ()


def find_settings(folder: Path) -> Settings:
    """The settings in `folder`, an absolute path, or in the nearest folder above that has some; graphopt.toml goes
    before pyproject.toml.

    Raises: UsageError GO027 for a file that is not TOML.
    """
    # Not Path.is_file: a folder above that may not be entered has no settings.
    for place in (folder, *folder.parents):
        if os.path.isfile(place / OWN_FILE):
            return Settings(place / OWN_FILE, _read(place / OWN_FILE))
        if os.path.isfile(place / _SHARED_FILE):
            table = _read(place / _SHARED_FILE, "tool", "graphopt")
            if table is not None:
                return Settings(place / _SHARED_FILE, table)
    return Settings()


def _read(path: Path, *keys: str) -> Any:
    """The table under these keys; None where there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST:,} bytes")
        table: Any = tomllib.loads(text.decode())
        for key in keys:
            if (table := table.get(key)) is None:
                return None
            if not isinstance(table, dict):
                raise ValueError(f"'{key}' is no table")
        return _with_paths(table, path.parent)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("GO027", f"it cannot be read: {error}", str(path), "--no-config does without it") from error


def _with_paths(value: Any, folder: Path) -> Any:
    """`value` with paths that begin at `folder`."""
    match value:
        case dict():
            return {key: _with_paths(inner, folder) for key, inner in value.items()}
        case list():
            return [_with_paths(inner, folder) for inner in value]
        case str() if value.endswith(_FILES):
            return str(folder / value)
    return value
