"""Results as JSON, schema `graphopt/1`: keys are added, never changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError
from graphopt.pipeline import Inspection, page
from graphopt.rewrite import CompiledRule

SCHEMA = "graphopt/1"

Report = dict[str, Any]


def inspection(found: Inspection) -> Report:
    """`graphopt inspect --json`"""
    return {"schema": SCHEMA, "command": "inspect", **asdict(found)}


def rules(known: Iterable[CompiledRule]) -> Report:
    """`graphopt rules --json`"""
    rows = [
        {
            "name": rule.name,
            "stage": rule.stage,
            "needs": [str(kernel) for kernel in rule.needs],
            "place": rule.place,
            "page": page(rule),
        }
        for rule in known
    ]
    return {"schema": SCHEMA, "command": "rules", "rules": rows}


def write(report: Report, destination: str) -> None:
    """Writes a report to a file, or to stdout for `-`. Raises: UsageError GO014 when the file cannot be written."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        return
    try:
        Path(destination).write_text(text)
    except OSError as error:
        raise UsageError("GO014", f"the report cannot be written: {error.strerror}", destination) from error
