"""The tables of checks that make rewriting safe and of mistakes to plant are true: each text stands in its file.

`tools/weaken.py` takes the checks away, `tools/planted.py` plants the mistakes.
"""

from __future__ import annotations

import tomllib
from pathlib import Path


def test_each_check_in_the_table_stands_once_where_it_says(root: Path) -> None:
    table = tomllib.loads((root / "tools" / "weaken.toml").read_text())
    rows = [row for group in table.values() for row in group]
    stale = [row["claim"] for row in rows if (root / row["file"]).read_text().count(row["old"]) != 1]
    assert len(rows) > 200
    assert not stale, "mend `file` and `old` in tools/weaken.toml"


def test_each_text_in_which_a_mistake_is_planted_stands_once_where_it_says(root: Path) -> None:
    table = tomllib.loads((root / "tools" / "planted.toml").read_text())
    rows = [row for stage in table.values() for row in stage]
    stale = [row["claim"] for row in rows if (root / row["file"]).read_text().count(row["old"]) != 1]
    assert len(rows) >= 20
    assert set(table) == {"clean", "recover", "fuse", "lower"}
    assert len({row["rule"] for row in rows}) >= 12
    assert not stale, "mend `file` and `old` in tools/planted.toml"
