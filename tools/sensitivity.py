"""The smallest mistake that the verifier still catches, by what is wrong.

In one layer of a BERT and one of a LLaMA, in float32 and float16, one number is changed by a relative amount (an angle,
by that share of itself), and the smallest amount that is found `unequal` is searched among 1, 0.5, 0.1, 0.05, … 1e-7.
`region` is the check that `fuse` does: block by block between the values that a rewrite keeps; `whole` compares the
outputs of the models alone. What cannot be changed a little (another axis of a softmax, another form of GELU, a bias
that is missing) is caught or not. `-` stands for what is not caught at any size.

    python tools/sensitivity.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from graphopt.ir import Model
from graphopt.ir.tensor import Array
from graphopt.ir.text import parse
from graphopt.passes import remove_dead
from graphopt.verify import check, compare

AMOUNTS: Final = tuple(step * 10.0**-power for power in range(8) for step in (1.0, 0.5))
TYPES: Final = ("float32", "float16")

BERT: Final = """
opset 20
(ids: int64[B, S], mask: int64[B, S]) -> (y: T[B, S, 64]) {
  x = Mul(Gather(T[50, 64] random(1), ids), T 7)
  keep = Cast(Unsqueeze(mask, [1, 2]), to=bool)
  bias = Where(keep, T 0, T -10000)
  q_bias = T[64] random(4)
  q = Transpose(Reshape(Add(MatMul(x, T[64, 64] random(2)), q_bias), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  k = Transpose(Reshape(Add(MatMul(x, T[64, 64] random(3)), T[64] random(5)), [0, 0, 4, 16]), perm=[0, 2, 3, 1])
  v = Transpose(Reshape(Add(MatMul(x, T[64, 64] random(6)), T[64] random(7)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  scale = T 0.25
  scores = Add(Mul(MatMul(q, k), scale), bias)
  context = Transpose(MatMul(Softmax(scores, axis=AXIS), v), perm=[0, 2, 1, 3])
  h = Add(x, MatMul(Reshape(context, [0, 0, 64]), T[64, 64] random(8)))
  epsilon = T 1e-5
  gain = T[64] random(9)
  shift = T[64] random(10)
  d = Sub(h, ReduceMean(h, [-1], keepdims=1))
  n = Mul(Div(d, Sqrt(Add(ReduceMean(Mul(d, d), [-1], keepdims=1), epsilon))), gain)
  normal = Add(n, shift)
  weight = T[64, 128] random(11)
  inner = MatMul(normal, weight)
  root = T 1.4142135
  active = GELU
  y = Add(normal, MatMul(active, T[128, 64] random(12)))
}
"""

LLAMA: Final = """
opset 20
(ids: int64[B, 8]) -> (y: T[B, 8, 64]) {
  x = Mul(Gather(T[50, 64] random(1), ids), T 7)
  epsilon = T 1e-5
  gain = T[64] random(2)
  normal = Mul(Div(x, Sqrt(Add(ReduceMean(Mul(x, x), [-1], keepdims=1), epsilon))), gain)
  flat = Transpose(Reshape(MatMul(normal, T[64, 64] random(3)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  cosine = T[8, 16] random(98)
  sine = T[8, 16] random(99)
  left, right = Split(flat, axis=-1, num_outputs=2)
  turned = Add(Mul(flat, cosine), Mul(Concat(Neg(right), left, axis=-1), sine))
  gate = MatMul(normal, T[64, 128] random(4))
  up = MatMul(normal, T[64, 128] random(5))
  slope = T 1
  active = Mul(Mul(gate, Sigmoid(Mul(gate, slope))), up)
  down = MatMul(active, T[128, 64] random(6))
  y = Add(down, Reshape(Transpose(turned, perm=[0, 2, 1, 3]), [0, 0, 64]))
}
"""

CONV: Final = """
opset 20
(x: T[B, 8, 12, 12]) -> (y: T[B, 16, 12, 12]) {
  kernel = T[16, 8, 3, 3] random(1)
  offset = T[16] random(2)
  a = Conv(x, kernel, pads=[1, 1, 1, 1])
  b = Add(a, Reshape(offset, [1, 16, 1, 1]))
  y = Relu(b)
}
"""

ERF: Final = "Mul(Mul(inner, Add(Erf(Div(inner, root)), T 1)), T 0.5)"
CUBE: Final = "Mul(Mul(Mul(inner, inner), inner), T 0.044715)"
TANH: Final = f"Mul(Mul(inner, Add(Tanh(Mul(Add(inner, {CUBE}), T 0.7978846)), T 1)), T 0.5)"
BLOCKS: Final = {
    BERT: ("x", "q", "k", "v", "context", "h", "normal", "inner", "active", "y"),
    LLAMA: ("x", "normal", "flat", "turned", "gate", "up", "active", "down", "y"),
    CONV: ("y",),
}


@dataclass(frozen=True)
class Mistake:
    """What is wrong, in which model: `change` makes other numbers of a constant's, for an amount."""

    name: str
    text: str
    constant: str
    change: Callable[[Array, float], Array]


def times(numbers: Array, amount: float) -> Array:
    return numbers * (1 + amount)


def one(numbers: Array, amount: float) -> Array:
    """One element alone."""
    changed = numbers.copy()
    changed.flat[numbers.size // 3] *= 1 + amount
    return changed


MISTAKES: Final = (
    Mistake("attention scale", BERT, "scale", times),
    Mistake("LayerNormalization epsilon", BERT, "epsilon", times),
    Mistake("LayerNormalization gain", BERT, "gain", times),
    Mistake("LayerNormalization bias", BERT, "shift", times),
    Mistake("MatMul bias", BERT, "q_bias", times),
    Mistake("one weight of a MatMul", BERT, "weight", one),
    Mistake("all weights of a MatMul", BERT, "weight", times),
    Mistake("GELU: √2 in erf", BERT, "root", times),
    Mistake("RMSNormalization epsilon", LLAMA, "epsilon", times),
    Mistake("RMSNormalization gain", LLAMA, "gain", times),
    Mistake("rotary: angle", LLAMA, "angle", times),
    Mistake("SiLU: slope", LLAMA, "slope", times),
    Mistake("Conv bias", CONV, "offset", times),
    Mistake("one weight of a Conv", CONV, "kernel", one),
)
"""What is caught from some amount on."""

SWAPS: Final = {
    "softmax over another axis": ("AXIS", "-1", "-2"),
    "GELU by tanh for erf": ("GELU", ERF, TANH),
    "LayerNormalization without its bias": ("Add(n, shift)", "Add(n, shift)", "Identity(n)"),
}
"""What is caught or not: what stands in the text, what it is there, and by mistake."""


def layer(text: str, dtype: str, swapped: str = "") -> Model:
    """A layer, with the one of `SWAPS` that is named."""
    for name, (place, right, wrong) in SWAPS.items():
        text = text.replace(place, wrong if name == swapped else right)
    model = parse(text.replace("T ", f"{dtype} ").replace("T[", f"{dtype}["))
    for name, numbers in angles(0.0).items():
        if name in model.graph.names:
            put(model, name, numbers)
    return model


def angles(amount: float) -> dict[str, Array]:
    """The tables of a rotary embedding whose angles are off by an amount."""
    frequency = 10000.0 ** (-np.arange(8) / 8)
    angle = np.arange(8)[:, None] * np.concatenate([frequency, frequency]) * (1 + amount)
    return {"cosine": np.cos(angle), "sine": np.sin(angle)}


def put(model: Model, name: str, numbers: Array) -> None:
    """Other numbers in place of a constant's, in its type."""
    old = model.graph.names[name]
    model.graph.replace(old, model.graph.add_constant(numbers, dtype=old.dtype), take_name=True)


def wrong(mistake: Mistake, dtype: str, amount: float) -> Model:
    model = layer(mistake.text, dtype)
    tables = angles(amount) if mistake.constant == "angle" else {}
    if not tables:
        tensor = model.graph.names[mistake.constant].tensor
        assert tensor is not None
        tables = {mistake.constant: mistake.change(tensor.numpy().astype(np.float64), amount)}
    for name, numbers in tables.items():
        put(model, name, numbers)
    remove_dead(model)
    return model


def caught(text: str, original: Model, candidate: Model, level: str) -> bool:
    if level == "whole":
        return compare(original, candidate).verdict == "unequal"
    for node in list(candidate.graph.ops()):
        for value in node.outputs:
            if value.name not in BLOCKS[text]:
                candidate.graph.rename(value, f"{value.name} (after)")
    return check(original, candidate).verdict == "unequal"


def smallest(mistake: Mistake, dtype: str, level: str) -> str:
    """The last of `AMOUNTS`, from the largest, that is caught, by bisection."""
    good, bad = -1, len(AMOUNTS)
    while bad - good > 1:
        middle = (good + bad) // 2
        candidate = wrong(mistake, dtype, AMOUNTS[middle])
        if caught(mistake.text, layer(mistake.text, dtype), candidate, level):
            good = middle
        else:
            bad = middle
    return f"{AMOUNTS[good]:.0e}" if good >= 0 else "-"


def main() -> None:
    columns = [(level, dtype) for dtype in TYPES for level in ("region", "whole")]
    table = Table(title="the smallest relative change that is caught")
    table.add_column("what is changed")
    for level, dtype in columns:
        table.add_column(f"{dtype}, {level}", justify="right")
    for mistake in MISTAKES:
        table.add_row(mistake.name, *(smallest(mistake, dtype, level) for level, dtype in columns))
    table.add_section()
    for name in SWAPS:
        found = [caught(BERT, layer(BERT, t), layer(BERT, t, name), level) for level, t in columns]
        table.add_row(name, *("caught" if one else "-" for one in found))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
