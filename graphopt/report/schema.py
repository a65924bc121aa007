"""Results as JSON, schema `graphopt/1`: keys are added, never changed."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Any

from graphopt.bench import Ratio
from graphopt.errors import GraphoptError
from graphopt.ir.save import Saved
from graphopt.pipeline import Explanation, Inspection, Result, page
from graphopt.pipeline.quantized import Quantized
from graphopt.report.sites import groups, unfused
from graphopt.report.whole import write_whole
from graphopt.rewrite import RuleSet
from graphopt.verify import Verification

SCHEMA = "graphopt/1"

Report = dict[str, Any]


def fusion(result: Result) -> Report:
    """`graphopt fuse --json`"""
    checked = result.verification
    return {
        "schema": SCHEMA,
        "command": "fuse",
        "model": result.source,
        "output": str(result.output) if result.output is not None else None,
        "files": _files(result.saved),
        "target": result.target,
        "assume": list(result.assume),
        "verdict": result.verdict,
        "error": _error(result.error),
        "nodes": {"before": result.ops_before.total(), "after": result.ops_after.total()},
        "ops": {"before": dict(result.ops_before), "after": dict(result.ops_after)},
        "fused": result.fused,
        "rewrites": [asdict(rewrite) for rewrite in result.rewrites],
        "rolled_back": [asdict(rewrite) for rewrite in result.rolled_back],
        "blamed": [asdict(conviction) for conviction in result.blamed],
        "rules": [
            {
                "name": name,
                "tried": count.tried,
                "matched": count.matched,
                "applied": count.applied,
                "declined": count.declined,
                "rolled_back": count.rolled_back,
                "rejected": dict(sorted(count.reasons.items())),
                "ms": round(count.seconds * 1000, 3),
            }
            for name, count in sorted(result.trace.counts.items())
        ],
        "left_out": result.trace.left_out,
        "stopped": [{"rule": stop.rule, "root": stop.root, "reason": stop.reason} for stop in result.trace.stopped],
        "failures": [asdict(failure) for failure in result.trace.failures],
        "verification": _verification(checked) if checked is not None else None,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
    }


def quantization(result: Quantized) -> Report:
    """`graphopt quantize --json`; sizes are bytes, latencies times relative to the original, sensitivities in units of
    the metric."""
    checked = result.verification
    return {
        "schema": SCHEMA,
        "command": "quantize",
        "model": result.source,
        "output": str(result.output) if result.output is not None else None,
        "files": _files(result.saved),
        "target": result.target,
        "cpu": result.cpu,
        "mode": result.mode,
        "verdict": result.verdict,
        "error": _error(result.error),
        "errors": [_error(error) for error in result.errors],
        "sites": [asdict(site) for site in result.sites],
        "groups": [asdict(group) for group in groups(result.sites)],
        "unfused": [asdict(one) for one in unfused(result.sites)],
        "integer": {
            "planned": result.integer_planned,
            "running": result.integer_running,
            "all": result.integer_all,
            "share": result.integer_share,
        },
        "accuracy": asdict(result.accuracy) if result.accuracy is not None else None,
        "size": {"before": result.size_before, "after": result.size_after},
        "latency": ratio(result.latency) if result.latency is not None else None,
        "latency_wall": ratio(result.latency_wall) if result.latency_wall is not None else None,
        "observer": result.observer,
        "samples": result.samples,
        "steps": [asdict(step) for step in result.steps],
        "notes": list(result.notes),
        "verification": _verification(checked) if checked is not None else None,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
    }


def verification(found: Verification, reference: str, candidate: str, error: GraphoptError | None = None) -> Report:
    """`graphopt verify --json`"""
    head = {"schema": SCHEMA, "command": "verify", "reference": reference, "candidate": candidate}
    return head | _verification(found) | {"error": _error(error)}


def explanation(found: Explanation) -> Report:
    """`graphopt explain --json`"""
    asked = [rule for rule in found.rules if rule.name in found.asked] if found.asked else found.rules
    return {
        "schema": SCHEMA,
        "command": "explain",
        "model": found.model,
        "target": found.target,
        "error": _error(next(iter(found.errors), None)),
        "fused": dict(found.fused),
        "required": [asdict(one) | {"met": one.met} for one in found.required],
        "rules": [asdict(rule) for rule in asked],
        "nodes": [asdict(node) for node in found.nodes],
    }


def inspection(found: Inspection) -> Report:
    """`graphopt inspect --json`"""
    return {"schema": SCHEMA, "command": "inspect", **asdict(found)}


def rules(found: RuleSet) -> Report:
    """`graphopt rules --json`"""
    rows = [
        {
            "name": rule.name,
            "stage": rule.stage,
            "needs": [str(kernel) for kernel in rule.needs],
            "place": rule.place,
            "page": page(rule),
        }
        for rule in found.rules
    ]
    failures = [asdict(failure) for failure in found.failures]
    return {"schema": SCHEMA, "command": "rules", "rules": rows, "failures": failures}


def ratio(found: Ratio) -> Report:
    """A ratio of times."""
    return {
        "ratio": found.ratio,
        "interval": [found.low, found.high],
        "pairs": found.pairs,
        "speedup": 1 / found.ratio if found.ratio else None,
        "difference": found.difference,
    }


def write(report: Report, destination: str) -> None:
    """Writes a report to a file, or to stdout for `-`. Raises: UsageError GO014 when the file cannot be written."""
    text = json.dumps(finite(report), indent=1, allow_nan=False) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        return
    write_whole(destination, text)


def finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _verification(found: Verification) -> Report:
    return {
        "verdict": found.verdict,
        "decided_by": found.decided_by,
        "level": found.level,
        "reason": found.reason,
        "hint": found.hint,
        "parting": asdict(found.parting) if found.parting is not None else None,
        "outputs": [asdict(one) for one in found.outputs],
        "regions": [asdict(one) for one in found.regions],
        "counts": asdict(found.counts),
        "crashes": [asdict(one) for one in found.crashes],
        "inputs": [asdict(one) for one in found.inputs],
        "providers": [asdict(one) for one in found.providers],
        "seconds": round(found.seconds, 4),
    }


def _files(saved: Saved | None) -> Report:
    """The files that were written, the model last, and by location those with weights that the input uses, too."""
    if saved is None:
        return {"written": [], "shared": []}
    return {"written": list(map(str, saved.files)), "shared": list(saved.shared)}


def _error(error: GraphoptError | None) -> Report | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "where": error.where, "hint": error.hint}
