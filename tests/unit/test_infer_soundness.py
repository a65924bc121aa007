"""What inference says holds in onnxruntime, at several sizes: types, shapes, contents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphopt.ir import Model, Value, dtypes, load, model_to_proto
from graphopt.ir import dims as dimensions
from graphopt.ir.dims import Size
from graphopt.ir.infer import infer

_ATOM = re.compile(r"[()]")
_FUNCTIONS = {"min": min, "max": max, "broadcast": lambda a, b: a if b == 1 else b}


@dataclass
class Findings:
    """How inference fared against what was observed; `mismatches` must be empty."""

    sizes: int = 0
    known: int = 0
    contents: int = 0
    mismatches: list[str] = field(default_factory=list)


class Sizes(dict[str, int]):
    """What each symbol is in one run; a symbol that no input binds is bound where it is first seen."""

    def value(self, size: Size) -> int | None:
        """The number that `size` stands for; None while it has a symbol without one."""
        if isinstance(size, int):
            return size
        total = 0
        for names, factor in size.terms:
            for name in names:
                number = self.get(name)
                if number is None and _ATOM.search(name):
                    known = {key: item for key, item in self.items() if key.isidentifier()}
                    try:
                        number = self[name] = eval(name, _FUNCTIONS, known)
                    except (NameError, SyntaxError):
                        return None
                if number is None:
                    return None
                factor *= number
            total += factor
        return total

    def agrees(self, size: Size, observed: int) -> bool:
        expected = self.value(size)
        if expected is None and isinstance(size, dimensions.Dim) and len(size.terms) == 1:
            ((names, factor),) = size.terms
            if len(names) == 1 and factor == 1:
                self[names[0]] = expected = observed
        return expected is None or expected == observed


def tapped(model: Model, base: Path | None = None) -> tuple[ort.InferenceSession, list[Value]]:
    """A session that returns every tensor of the main graph, and the values that these are."""
    values = [v for node in model.graph.ops() for v in node.outputs if v.name and v.dtype]
    proto = model_to_proto(model)
    del proto.graph.output[:]
    for value in values:
        written = onnx.ValueInfoProto(name=value.name)
        written.type.tensor_type.elem_type = value.dtype
        proto.graph.output.append(written)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if base is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(base))
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]), values


def feeds(model: Model, sizes: Mapping[str, int], seed: int = 0) -> tuple[dict[str, np.ndarray], Sizes]:
    """Random inputs (integers are 0 or 1) whose symbolic dimensions are `sizes`, by default 2 or 3."""
    bound, random, made = Sizes(sizes), np.random.default_rng(seed), {}
    for node in model.graph.inputs:
        if node.data is not None:
            continue
        value = node.output
        shape = []
        for size in value.shape or ():
            for name in sorted(dimensions.symbols(size)):
                bound.setdefault(name, 2 + len(bound) % 2)
            shape.append(bound.value(size) or 0)
        dtype = dtypes.to_numpy(value.dtype)
        numbers = random.standard_normal(shape) if value.dtype in dtypes.FLOATS else random.integers(0, 2, shape)
        made[value.name] = np.asarray(numbers).astype(dtype)
    return made, bound


def check(model: Model, runs: Iterable[Mapping[str, int]] = ({}, {}), base: Path | None = None) -> Findings:
    """Runs `model`, whose types are inferred, once per element of `runs` (symbol → size), and compares every value."""
    session, values = tapped(model, base)
    findings = Findings()
    inputs = {name for n in model.graph.inputs for size in n.output.shape or () for name in dimensions.symbols(size)}
    for value in values:
        for size in value.shape or ():
            findings.sizes += 1
            findings.known += not (dimensions.symbols(size) - inputs) or _derived(size, inputs)
    for seed, sizes in enumerate(runs):
        given, bound = feeds(model, sizes, seed)
        for value, observed in zip(values, session.run(None, given), strict=True):
            _compare(value, np.asarray(observed), bound, findings)
    return findings


def _derived(size: Size, inputs: set[str]) -> bool:
    """Whether `size` is an opaque function of the inputs' sizes, as min(sequence,64)."""
    words = {word for name in dimensions.symbols(size) for word in re.findall(r"[A-Za-z_?]\w*", name)}
    return not (words - inputs - set(_FUNCTIONS))


def _compare(value: Value, observed: np.ndarray, bound: Sizes, findings: Findings) -> None:
    if dtypes.to_numpy(value.dtype) != observed.dtype and value.dtype != dtypes.STRING:
        findings.mismatches.append(f"{value}: {dtypes.NAMES[value.dtype]}, observed {observed.dtype}")
    if value.shape is not None:
        same = len(value.shape) == observed.ndim and all(map(bound.agrees, value.shape, observed.shape))
        if not same:
            findings.mismatches.append(f"{value}: {value.shape}, observed {observed.shape}")
    if value.content is not None:
        findings.contents += 1
        elements = observed.reshape(-1).tolist()
        if len(elements) != len(value.content) or not all(map(bound.agrees, value.content, map(int, elements))):
            findings.mismatches.append(f"{value}: {value.content}, observed {elements}")


def _attention_model() -> onnx.ModelProto:
    """Shape arithmetic as exporters write it: heads split by run-time sizes, a causal mask, a table of positions."""
    text = """
    <ir_version: 9, opset_import: ["": 17]>
    g (float[B, S, 8] x, int64[B, S] mask) => (float[B, S, 8] y)
    <int64[3] sizes = {1, 6, 8}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] minus = {-1},
     int64[1] size = {4}, int64 s0 = {0}, int64 s1 = {1}, float low = {-9}>
    {
        shape = Shape(x)
        batch = Gather(shape, zero)
        length = Gather(shape, one)
        table = ConstantOfShape(sizes)
        cut = Slice(table, zero, length, one)
        h = Add(x, cut)
        wanted = Concat<axis = 0>(batch, length, minus, size)
        split = Reshape(h, wanted)
        q = Transpose<perm = [0, 2, 1, 3]>(split)
        k = Transpose<perm = [0, 2, 3, 1]>(split)
        scores = MatMul(q, k)
        n = Squeeze(length)
        steps = Range(s0, n, s1)
        rows = Unsqueeze(steps, one)
        causal = LessOrEqual(steps, rows)
        half = Div(length, two)
        first = Slice(h, zero, half, one)
        rest = Slice(h, half, length, one)
        target = Concat<axis = 0>(batch, minus, length, length)
        rank = Shape(target)
        ones = ConstantOfShape<value = int64[1] {1}>(rank)
        no = Mul(ones, minus)
        same = Equal(target, no)
        chosen = Where(same, ones, target)
        square = Expand(causal, chosen)
        bias = Where(square, scores, low)
        p = Softmax<axis = -1>(bias)
        z = MatMul(p, q)
        back = Transpose<perm = [0, 2, 1, 3]>(z)
        flat = Concat<axis = 0>(batch, length, minus)
        y = Reshape(back, flat)
        found = NonZero(mask)
        twice = Concat<axis = 1>(found, found)
        sum = ReduceSum(mask, one)
        best, which = TopK(x, two)
    }
    """
    return onnx.parser.parse_model(text)


_RUNS = [{"B": 2, "S": 5}, {"B": 3, "S": 4}, {"B": 1, "S": 1}]


def test_inferred_holds_in_onnxruntime() -> None:
    model = load(_attention_model())
    infer(model)
    findings = check(model, _RUNS)
    assert findings.mismatches == []
    assert findings.contents > 30
    # NonZero's count, twice.
    assert findings.sizes - findings.known == 2


def test_sizes_that_broadcast_hold_in_onnxruntime() -> None:
    """A bias that may be one row or all, beside a table that may be too short."""
    text = """
    <ir_version: 9, opset_import: ["": 17]>
    g (float[B, S, T] x, float[B, 1, U] bias, float[V] row, float[S, 64] table) => (float[B, S, W] y)
    <int64[1] zero = {0}, int64[1] one = {1}>
    {
        scores = Add(x, bias)
        again = Add(scores, x)
        added = Add(row, again)
        p = Softmax<axis = -1>(added)
        shape = Shape(p)
        end = Gather(shape, one)
        cut = Slice(table, zero, end, one)
        part = Slice(cut, zero, end, one)
        flipped = Transpose(p)
        y = Neg(p)
    }
    """
    model = load(onnx.parser.parse_model(text))
    infer(model)
    runs = [
        {"T": t, "U": u, "V": v, "B": 2, "S": 3} for t, u, v in ((5, 5, 1), (5, 1, 5), (1, 4, 1), (1, 1, 6), (4, 4, 4))
    ]
    assert check(model, runs).mismatches == []
    names = model.graph.names
    assert names["again"].shape == names["scores"].shape
    assert names["part"].shape == names["cut"].shape


@pytest.mark.parametrize(
    ("name", "shape", "content"),
    [("q", (2, 2, "S", 4), None), ("scores", ("B", "S", "S"), None), ("wanted", (4,), ("B", "B", -1, 4))],
)
def test_a_wrong_claim_is_found(name: str, shape: tuple[int | str, ...], content: tuple[int | str, ...] | None) -> None:
    """The check itself: a shape or content that does not hold at every size is a mismatch."""
    model = load(_attention_model())
    infer(model)
    value = model.graph.names[name]
    value.shape = tuple(map(_size, shape))
    value.content = tuple(map(_size, content)) if content is not None else value.content
    assert any(name in text for text in check(model, _RUNS).mismatches)


def _size(size: int | str) -> Size:
    return dimensions.parse(size) if isinstance(size, str) else size
