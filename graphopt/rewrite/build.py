"""Making what a rule puts in place: `op.Name(...)` on values adds nodes, with types inferred at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.ir import IR_DOMAIN, Graph, Node, Shape, Tensor, Value, dtypes
from graphopt.ir.infer import infer_node
from graphopt.ir.inference.fallback import refusal
from graphopt.ir.schema import MICROSOFT, Signature, first_version, onnx_schema, signature
from graphopt.rewrite.blame import Mistake
from graphopt.rewrite.vocabulary import check_operation


class Declined(Exception):
    """A rewrite found out that it cannot be written here; the message is the reason."""


class Builder:
    """`op` in a rule's `rewrite`: adds operations to the graph just before the match's root.

    `op.Gelu(x, approximate="tanh")` returns the first output, `op.split(...)` all of them; those of another operation
    are `op.Name(..., outputs=3).node.outputs`; `op.const(array, like=x)` makes a constant of `x`'s element type.
    `op.ms` and `op.ir` make contrib and internal operations, `op.since(13)` those of that opset at least.
    """

    def __init__(self, graph: Graph, before: Node, domain: str = "", oldest: int = 1) -> None:
        self._domain = domain
        self._oldest = oldest
        self._graph = graph
        self._before = before
        self._made: list[Node] = []
        self._constants: list[Value] = []

    @property
    def made(self) -> list[Node]:
        """The nodes added so far, in order."""
        return self._made

    @property
    def new_bytes(self) -> int:
        """Bytes of the constants added that somebody reads."""
        return sum(value.tensor.nbytes for value in self._constants if value.uses and value.tensor is not None)

    @property
    def ms(self) -> Builder:
        return self._in(MICROSOFT)

    @property
    def ir(self) -> Builder:
        return self._in(IR_DOMAIN)

    def since(self, opset: int) -> Builder:
        """The same, for standard operations in the form that they have from `opset` on."""
        return self._in("", opset)

    def _in(self, domain: str, oldest: int = 1) -> Builder:
        other = Builder(self._graph, self._before, domain, oldest)
        other._made, other._constants = self._made, self._constants
        return other

    def const(self, data: Any, like: Value | None = None, name: str = "constant") -> Value:
        """A new initializer; `like` gives the element type, otherwise NumPy's of `data`.

        Raises: Declined where a number is too large for that type.
        """
        dtype = like.dtype if like is not None and not isinstance(data, Tensor) else None
        if dtype in dtypes.FLOATS:
            with np.errstate(over="ignore"):
                tensor = Tensor.of(data, dtype)
            if (np.isfinite(data) & ~np.isfinite(tensor.numpy())).any():
                raise Declined(f"a number is too large for {dtypes.NAMES[dtype]}")
            data, dtype = tensor, None
        self._constants.append(self._graph.add_constant(data, name, dtype))
        return self._constants[-1]

    def ints(self, *values: int) -> Value:
        """A new int64 vector: axes, shapes, split sizes."""
        return self._graph.add_constant(Tensor.of(list(values), 7), "ints")

    def reshape(self, x: Value, shape: Shape) -> Value:
        """`x` in another shape, of whose dimensions all but one are numbers or dimensions of `x`.

        The target is a constant where each of them stands in its place in `x`, else made from x's shape at run time.
        Raises: Declined when two dimensions are neither.
        """
        own = x.shape or ()
        target: list[int] = []
        moved: dict[int, int] = {}
        for axis, size in enumerate(shape):
            if axis < len(own) and own[axis] == size:
                target.append(size if isinstance(size, int) and size else 0)
            elif not isinstance(size, int) and size in own:
                moved[axis] = own.index(size)
                target.append(1)
            else:
                target.append(size if isinstance(size, int) and size else -1)
        if target.count(-1) > 1:
            raise Declined(f"the shape {shape} cannot be made from {x.shape}")
        if not moved:
            return self.Reshape(x, self.ints(*target))
        literal = self._graph.opsets.get("", 1) >= 14 and -1 not in target
        if literal:
            # A size of 0 that was moved would be read as "copy".
            moved |= {axis: axis for axis, size in enumerate(target) if size == 0}
        parts = [self.size(x, moved[axis]) if axis in moved else self.ints(size) for axis, size in enumerate(target)]
        return self.Reshape(x, self.Concat(*parts, axis=0), allowzero=1 if literal else None)

    def transposed(self, x: Value) -> Value:
        """`x` with its last two dimensions exchanged. Raises: Declined where its rank is not known."""
        if x.rank is None:
            raise Declined(f"the rank of {x.name} is not known")
        return self.Transpose(x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])

    def size(self, x: Value, axis: int) -> Value:
        """The size of one dimension of `x`, as an int64 vector of one: a constant where it is a number.

        It is read from what `x` is a view of, so that the view may go.
        """
        known = x.shape[axis] if x.shape is not None else None
        if isinstance(known, int):
            return self.ints(known)
        while known is not None and x.node.op in ("Reshape", "Transpose") and not x.node.domain:
            source = x.node.inputs[0]
            if source is None or source.shape is None or known not in source.shape:
                break
            x, axis = source, source.shape.index(known)
        return self.Gather(self.Shape(x), self.ints(axis))

    def expand(self, x: Value, shape: Shape, sizes: Sequence[Value | int]) -> Value:
        """`x` broadcast to `shape`, whose sizes at run time are `sizes`; `x` itself where it has that shape already."""
        if x.shape == shape:
            return x
        parts = [self.ints(size) if isinstance(size, int) else size for size in sizes]
        return self.Expand(x, self.Concat(*parts, axis=0))

    def scaled(self, x: Value, k: float | None) -> Value:
        """`x * k`; `x` itself for k = 1 or None."""
        if k is None or k == 1.0:
            return x
        return self.Mul(x, self.const(k, like=x))

    def sum(self, *operands: Value) -> Value:
        """The sum, added from left to right."""
        return self._chain("Add", operands)

    def prod(self, *operands: Value) -> Value:
        """The product, multiplied from left to right."""
        return self._chain("Mul", operands)

    def _chain(self, name: str, operands: tuple[Value, ...]) -> Value:
        result = operands[0]
        for operand in operands[1:]:
            result = self._add(name, [result, operand], {}).output
        return result

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name.startswith("_"):
            raise AttributeError(name)

        def make(*inputs: Value | None, domain: str = self._domain, outputs: int = 1, **attrs: Any) -> Value:
            return self._add(name, inputs, attrs, outputs, domain).output

        return make

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> tuple[Value, ...]:
        """`x` cut along `axis` into parts of the given sizes."""
        return self._add("Split", [x], {"axis": axis, "split": list(sizes)}, len(sizes)).outputs

    def _add(
        self, name: str, inputs: Sequence[Value | None], attrs: dict[str, Any], outputs: int = 1, domain: str = ""
    ) -> Node:
        check_operation(domain, name, len(inputs), attrs)
        for slot, value in enumerate(inputs):
            if value is not None and not isinstance(value, Value):
                hint = f"write op.const({value!r}, like=x)" if isinstance(value, (int, float)) else "give a Value"
                raise Mistake(f"operand {slot + 1} of {name} is {value!r}", hint)
        self._graph.import_domain(domain)
        version = max(_version(self._graph, domain, name), 1 if domain else self._oldest)
        slots = self._slots(signature(domain, name, version), list(map(self.here, inputs)), attrs)
        self._check_attributes(name, domain, version, attrs)
        if not domain and version < 8 and name in _ALIKE and len({v.shape for v in slots if v is not None}) > 1:
            raise Declined(f"{name} of opset {version} does not broadcast")
        node = self._graph.add_op(
            name, slots, attrs, domain=domain, version=version, outputs=outputs, before=self._before
        )
        infer_node(node)
        if node.output.shape is None and all(v is None or v.shape is not None for v in slots):
            # Of known operands nothing is known: either nothing can be, or the node is wrong.
            problem = refusal(node)
            if problem:
                raise Mistake(f"{name} cannot be written so: {problem}", "look at its operands and attributes")
        self._made.append(node)
        return node

    def here(self, value: Any) -> Any:
        """`value` in this scope: one that was matched in a scope around is captured."""
        around = self._graph.holder
        while around is not None and isinstance(value, Value):
            if value.node.graph is around.graph:
                return self._graph.capture(value)
            around = around.graph.holder
        return value

    def _slots(self, known: Signature | None, slots: list[Value | None], attrs: dict[str, Any]) -> list[Value | None]:
        """The inputs, with what `attrs` calls by an input's name in its slot.

        So `axes=[-1]` is right in any opset, and so is `min=0.0`, a number of the first operand's type.
        """
        names = known.inputs if known is not None else ()
        for slot, name in enumerate(names):
            if name in attrs and known is not None and name not in known.attributes:
                given = attrs.pop(name)
                slots += [None] * (slot + 1 - len(slots))
                if given is not None:
                    slots[slot] = self.ints(*given) if isinstance(given, list) else self.const(given, slots[0])
        while slots and slots[-1] is None:
            slots.pop()
        return slots

    def _check_attributes(self, name: str, domain: str, version: int, attrs: Mapping[str, Any]) -> None:
        """Raises: Mistake for an attribute that the operator has in other opsets only, Declined for a lost number."""
        known = onnx_schema(domain, name, version)
        for attribute, written in attrs.items():
            if any(map(_is_lost, written if isinstance(written, list) else [written])):
                raise Declined(f"{attribute} is {written}, which an attribute cannot hold")
            if known is not None and written is not None and attribute not in known.attributes:
                hint = f"ask in where for root.node.graph.opsets[{domain!r}]"
                raise Mistake(f"{name} of opset {version} has no attribute or input '{attribute}'", hint)


_ALIKE = frozenset(("Max", "Mean", "Min", "Sum"))
"""Operators whose operands must have one shape before opset 8."""


def _is_lost(number: Any) -> bool:
    """Whether a finite number that is not zero becomes infinite or zero in float32, the type of attributes."""
    if not isinstance(number, float) or number == 0 or not np.isfinite(number):
        return False
    with np.errstate(over="ignore", under="ignore"):
        held = np.float32(number)
    return bool(held == 0 or np.isinf(held))


def _version(graph: Graph, domain: str, op: str) -> int:
    """The opset a new node is written in: the model's, or the first that has the operator where the model's has not."""
    version = graph.opsets.get(domain, 1)
    return version if domain else max(version, first_version(domain, op))
