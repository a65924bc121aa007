"""Whose fault it is that a rule raised: its own, or that of a model that says what no operator allows."""

from __future__ import annotations

from graphopt.ir import Node
from graphopt.ir.inference.fallback import refusal

_MOST = 64
"""Nodes that are looked at."""


def malformed(root: Node, reach: int) -> str:
    """The first node that onnx refuses among `root` and what it depends on as far as `reach` nodes, and why; or ''."""
    ring, found = [root], {root}
    for _ in range(reach + 1):
        for node in ring:
            reason = refusal(node)
            if reason:
                return f"{node.label} ({node.op}) is not valid: {reason}"
        ring = list(dict.fromkeys(p for node in ring for p in node.producers() if p not in found and not p.is_source))
        ring = ring[: _MOST - len(found)]
        found.update(ring)
    return ""
