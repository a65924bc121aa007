"""Which rules are worth trying at a node: decided once for each shape of the nodes behind it, not once for each node.

Graphs repeat themselves. What stands behind a node, to a few levels, is read as a key (operations, and numbers where
constants are); rules whose patterns cannot match such a key are left out, and the answer is kept. So a hundred rules
that differ from the graph near their root cost as much as one. The test may say yes where the matcher says no, never
the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.ir import Node, Value
from graphopt.rewrite.facts import COPIES, close, constant_of, number_in, source_of
from graphopt.rewrite.leaves import COMMUTATIVE, INVERSE, LINKS
from graphopt.rewrite.pattern import (
    Alt,
    Anchor,
    Chain,
    Check,
    EachUse,
    Expr,
    Literal,
    Op,
    Scaled,
    Var,
    may_lack,
    root_ops,
)
from graphopt.rewrite.rule import CompiledRule

Key = Any
"""What stands at a value: (domain, op, keys of the operands), of which the last is missing where the key ends; (number,
dtype) for a constant number; `_CONSTANT`; `_ANY`, an input of the scope; None for an empty slot."""

_ANY = "any"
_CONSTANT = "constant"
_CUT = "cut"
_LEVELS = (1, 4, 8, 12)
"""How far behind a node is looked: no farther where no rule is left, or after the second look at most `_MANY`."""
_MANY = 8
_FEW = 4
"""Sums and products of more operands are read roughly."""
_WIDEST = 4
"""Operations with more operands are not looked behind."""


@dataclass(frozen=True)
class _Inverse:
    """A leaf of a sum or product: what is subtracted, or divided by."""

    key: Key


class RuleIndex:
    """The rules of one run by their root, in the order in which they are tried."""

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        self.roots: dict[tuple[str, str], tuple[CompiledRule, ...]] = {}
        for rule in rules:
            for root in rule.roots:
                self.roots[root] = (*self.roots.get(root, ()), rule)
        self.reach = {root: max(rule.pattern.depth for rule in found) for root, found in self.roots.items()}
        """How far the rules of a root look behind it."""
        self._known: dict[Key, tuple[CompiledRule, ...]] = {}

    def candidates(self, node: Node) -> tuple[CompiledRule, ...]:
        """The rules that may match with their first root at `node`."""
        root = (node.domain, node.op)
        found, depth = self.roots[root], self.reach[root]
        for look, levels in enumerate(_LEVELS):
            key = _key_of(node, min(levels, depth))
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = tuple(rule for rule in found if _may_root(rule.pattern.roots[0], key))
            found = known
            if levels >= depth or len(found) <= (_MANY if look else 0):
                break
        return found


def _key_of(node: Node, levels: int) -> Key:
    inputs = node.inputs if node.arity == len(node.inputs) else node.inputs[: node.arity]
    if not levels or len(inputs) > _WIDEST:
        return node.domain, node.op
    return node.domain, node.op, tuple([_key(value, levels - 1) for value in inputs])


def _key(value: Value | None, levels: int) -> Key:
    if value is None:
        return None
    if value.node.op in COPIES:
        value = source_of(value)
    node = value.node
    # Of sources, an input is no constant; the rest may be.
    if node.op in ("Constant", "Capture") and (tensor := constant_of(value)) is not None:
        number = number_in(tensor)
        return _CONSTANT if number is None else (number, value.dtype)
    return _ANY if node.is_source else _key_of(node, levels)


def _may_root(e: Expr, key: Key) -> bool:
    """Whether `e` may match at the very node that `key` describes: behind it only where it is a copy itself."""
    match e:
        case Alt(branches=branches):
            return any(_may_root(branch, key) for branch in branches)
        case Anchor(whole=inner) | EachUse(value=inner) | Check(inner=inner):
            return _may_root(inner, key)
    return (key[1] in COPIES or key[:2] in root_ops(e)) and _may(e, key)


def _may(e: Expr, key: Key) -> bool:
    """Whether `e` may match a value that `key` describes."""
    match e:
        case Op():
            return _may_op(e, key)
        case Chain():
            return _may_chain(e, key)
        case Scaled():
            return _may_scaled(e, key)
        case Alt(branches=branches):
            return any(_may(branch, key) for branch in branches)
        case Anchor(whole=inner) | EachUse(value=inner) | Check(inner=inner):
            return _may(inner, key)
        case Literal() | Var(kind="number" | "factor"):
            return _is_number(key) and _may_number(e, *key)
        case Var(constraint=constraint) if constraint.constant:
            return key == _CONSTANT or _is_number(key)
    return True


def _may_number(e: Expr, number: float, dtype: int) -> bool:
    match e:
        case Literal(value=want):
            return close(want, number, dtype)
        case Alt(branches=branches):
            return any(_may_number(branch, number, dtype) for branch in branches)
    return isinstance(e, Var)


def _may_op(e: Op, key: Key) -> bool:
    if e.op in COPIES or (e.op == "Constant" and not _is_node(key)):
        return True
    if not _is_node(key) or key[:2] != (e.domain, e.op):
        return False
    if len(key) == 2:
        return True
    operands, keys = e.operands, key[2]
    if e.attrs:
        # Slots that the pattern names as attributes are not operands; the first never is one.
        operands, keys = operands[:1], keys[:1]
    elif not e.rest and any(other is not None for other in keys[len(operands) :]):
        return False
    if not e.domain and e.op in COMMUTATIVE:
        return all(may_lack(operand) or any(_may_operand(operand, key) for key in keys) for operand in operands)
    return all(_may_operand(*pair) for pair in zip(operands, keys, strict=False))


def _may_operand(e: Expr | None, key: Key) -> bool:
    return key is None or (e is not None and _may(e, key))


def _may_scaled(e: Scaled, key: Key) -> bool:
    if not _is_node(key) or key[0] or key[1] not in ("Mul", "Div"):
        return False
    if len(key) == 2:
        return True
    if len(key[2]) != 2:
        return False
    a, b = key[2]
    pairs = [(a, b), (b, a)] if key[1] == "Mul" else [(a, _inverse("Div", b))]
    return any(_is_number(k) and _may_number(e.factor, *k) and _may(e.x, x) for x, k in pairs)


def _may_chain(e: Chain, key: Key) -> bool:
    """Each operand may be one of the leaves; of a few operands, each one of its own."""
    leaves = list(_leaves(e.op, key, len(e.operands) - 1))
    if _CUT in leaves:
        return True
    if len(e.operands) > _FEW:
        return all(any(_may_leaf(operand, leaf) for leaf in leaves) for operand in e.operands)
    return _may_share(e.operands, leaves)


def _may_share(operands: Sequence[Expr], leaves: Sequence[Key]) -> bool:
    """Whether each operand may be a leaf of its own."""
    if not operands:
        return True
    first, *others = operands
    return any(
        _may_leaf(first, leaf) and _may_share(others, [*leaves[:index], *leaves[index + 1 :]])
        for index, leaf in enumerate(leaves)
    )


def _may_leaf(e: Expr, leaf: Key) -> bool:
    if not isinstance(leaf, _Inverse):
        return _may(e, leaf)
    match e:
        case Alt(branches=branches):
            return any(_may_leaf(branch, leaf) for branch in branches)
        case Scaled(x=inner) | Op(op="Neg" | "Reciprocal", domain="", operands=(Expr() as inner,)):
            return _may(inner, leaf.key)
        case Op(op="Div", domain="", operands=(_, Expr() as inner)):
            return _may(inner, leaf.key)
    return False


def _leaves(op: str, key: Key, levels: int) -> Iterator[Key]:
    """What a sum or product may be made of, seen through `levels` of its nodes; `_CUT` where the key ends."""
    if not levels or not _is_node(key) or key[0] or key[1] not in LINKS[op]:
        return
    if len(key) == 2:
        yield _CUT
        return
    parts = key[2]
    if len(parts) == 1:
        yield from _leaves(op, parts[0], levels)
        return
    for leaf in parts if key[1] != INVERSE[op] else (parts[0], _inverse(INVERSE[op], parts[1])):
        if leaf is not None:
            yield leaf
            yield from _leaves(op, leaf, levels - 1)


def _inverse(op: str, key: Key) -> Key:
    """What stands for the subtracted or dividing `key` in a sum or product."""
    if not _is_number(key) or (op == "Div" and key[0] == 0):
        return _Inverse(key)
    return (1.0 / key[0] if op == "Div" else -key[0]), key[1]


def _is_number(key: Key) -> bool:
    return isinstance(key, tuple) and isinstance(key[0], float)


def _is_node(key: Key) -> bool:
    return isinstance(key, tuple) and isinstance(key[0], str)
