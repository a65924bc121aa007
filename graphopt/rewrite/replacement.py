"""Cutting a match out and putting something in its place: what must hold, whatever the rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphopt.ir import Graph, Node, Shape, Value, dtypes
from graphopt.ir.bodies import oldest_opset
from graphopt.ir.fused import DOMAIN
from graphopt.rewrite.blame import Mistake
from graphopt.rewrite.build import Declined
from graphopt.rewrite.matcher import Match


class Rejected(Exception):
    """A site was built and must be taken back; the message is the reason."""


def escape(match: Match) -> tuple[Node, str] | None:
    """Why the match cannot be cut out: the inner node that is seen from outside, and words. None when it can."""
    inside, roots = set(match.nodes), set(match.roots)
    for node in match.nodes:
        for value in node.outputs:
            if value in roots or not value.uses:
                continue
            graph = node.graph
            for reader, slot in graph.uses_of(value):
                # A node may be inside while a subgraph of it sees the value.
                if reader not in inside or slot >= reader.arity:
                    what = "a graph output" if reader is graph.output else f"also used by {reader.label}"
                    return node, f"{node.label} inside the match is {what}"
    return None


def operands_of(match: Match) -> list[Value]:
    """The values that enter the match from outside."""
    inside = set(match.nodes)
    found = {v: None for node in match.nodes for v in node.inputs if v is not None and v.node not in inside}
    return list(found)


def replaced(graph: Graph, old: Sequence[Value], new: Sequence[Value]) -> list[tuple[Value, Value]]:
    """The roots that are replaced, each with its new value; a root that is returned as it is stays.

    Raises: Mistake when a new value cannot stand for the old one, Rejected when nothing would change.
    """
    if len(old) != len(new):
        roots = "1 root" if len(old) == 1 else f"{len(old)} roots"
        raise Mistake(f"rewrite returns {len(new)} values for {roots}", "return one value for each root")
    for a, b in zip(old, new, strict=True):
        if not isinstance(b, Value):
            raise Mistake(f"rewrite returns {b!r}, not a value", "return what op.Name(...) returns, or None to decline")
        if b.node not in graph:
            raise Mistake(f"rewrite returns {b!r} of another graph", "return a value of this match, or a new one")
        if a.dtype and b.dtype and a.dtype != b.dtype:
            found, wanted = (dtypes.NAMES.get(value.dtype) for value in (b, a))
            raise Mistake(f"rewrite returns {found}, the value it replaces is {wanted}", f"cast it to {wanted}")
        if a.shape is not None and b.shape is not None and not _may_equal(a.shape, b.shape):
            message = f"rewrite returns a value of shape {b.shape}, the one it replaces has {a.shape}"
            raise Mistake(message, "say in where when the shapes agree, and return its reason when they do not")
        if b in old and new[old.index(b)] is not b:
            message = f"rewrite returns '{b.name}', which it replaces by something else"
            raise Mistake(message, "return an Identity of it, or another value")
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
    if not pairs:
        raise Rejected("the rewrite changes nothing")
    return pairs


def _may_equal(a: Shape, b: Shape) -> bool:
    sizes = [(p, q) for p, q in zip(a, b, strict=False) if isinstance(p, int) and isinstance(q, int)]
    return len(a) == len(b) and all(p == q for p, q in sizes)


def keeps_opset(graph: Graph, match: Match, made: Iterable[Node], has_kernel: bool) -> None:
    """Nothing new needs a newer opset than the model has, but for what was written in one already.

    Of rules that `has_kernel` only bodies are asked: the target knows from which opset on it has the kernel. Raises:
    Declined.
    """
    opset, known = graph.opsets.get("", 1), {node.op for node in match.nodes}
    for node in made:
        plain = not node.domain and not has_kernel and node.op not in known
        needed = (oldest_opset(node) or 0) if node.domain == DOMAIN else node.version if plain else 0
        if needed > opset:
            raise Declined(f"{node.op} needs opset {needed}, and the model stays at {opset}")


def adopt_type(graph: Graph, old: Value, new: Value) -> bool:
    """What inference does not know of `new` is what was known of `old`; what a graph input declares stays.

    Whether this made more known.
    """
    before = new.dtype, new.shape
    if not new.node.is_source:
        graph.set_type(new, new.dtype or old.dtype, new.shape if new.shape is not None else old.shape)
    return before != (new.dtype, new.shape)


def remove_unread(graph: Graph, nodes: Iterable[Node]) -> None:
    """Removes those of `nodes` that nobody reads any more, users first."""
    for node in sorted((n for n in nodes if n in graph), key=lambda n: n.rank, reverse=True):
        if all(value.uses == 0 for value in node.outputs):
            graph.remove(node)
