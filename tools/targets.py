"""Time the kernels of a target's table beside their parts: what its `cost` column says.

    python tools/targets.py ort-cpu

One thread, float32, onnxruntime with its own optimizer off (on, it would fuse the parts itself), batch 1 and 8 × 128 of
a BERT-base-sized layer; both spellings run in turn, medians. A cost is new / parts. Where the table says something else
than the mean of both batches by more than a quarter, the row ends in a question mark.
"""

from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from graphopt.ir import model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.runtime import RunError, Runner
from graphopt.targets import target_named

RUNS = 40
WIDE = "(x: float32[B, S, 3072]) -> (y: float32[B, S, 3072]) {{ {} }}"
NORM = (
    "(x: float32[B, S, 768]) -> (y: float32[B, S, 768])"
    " {{ g = float32[768] random(1)  b = float32[768] random(2)  {} }}"
)
HEADS = (
    "(x: float32[B, S, 768], m: float32[B, 1, S, S]) -> (y: float32[B, S, 768])"
    " {{ x4 = Reshape(x, [0, 0, 12, 64])  h = Transpose(x4, perm=[0, 2, 1, 3])  {} }}"
)
ERF = "y = Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.4142135)), 1.0))"
TANH = "y = Mul(Mul(x, 0.5), Add(Tanh(Mul(Add(x, Mul(Mul(Mul(x, x), x), 0.044715)), 0.7978846)), 1.0))"
MEAN = (
    "d = Sub(x, ReduceMean(x, [-1]))  v = ReduceMean(Mul(d, d), [-1])  y = Add(Mul(Div(d, Sqrt(Add(v, 1e-5))), g), b)"
)
RMS = "y = Mul(Mul(x, Reciprocal(Sqrt(Add(ReduceMean(Mul(x, x), [-1]), 1e-6)))), g)"
ATTENTION = (
    "p = Softmax(Add(Mul(MatMul(h, Transpose(x4, perm=[0, 2, 3, 1])), 0.125), m), axis=-1)"
    "  y = Reshape(Transpose(MatMul(p, h), perm=[0, 2, 1, 3]), [0, 0, 768])"
)
KERNELS = {
    ("", "Gelu"): (WIDE, "y = Gelu(x)", ERF),
    ("com.microsoft", "Gelu"): (WIDE, "y = com.microsoft.Gelu(x)", ERF),
    ("com.microsoft", "FastGelu"): (WIDE, "y = com.microsoft.FastGelu(x)", TANH),
    ("com.microsoft", "QuickGelu"): (
        WIDE,
        "y = com.microsoft.QuickGelu(x, alpha=1.702)",
        "y = Mul(x, Sigmoid(Mul(x, 1.702)))",
    ),
    ("", "LayerNormalization"): (NORM, "y = LayerNormalization(x, g, b)", MEAN),
    ("", "RMSNormalization"): (NORM, "y = RMSNormalization(x, g, epsilon=1e-6)", RMS),
    ("", "SimplifiedLayerNormalization"): (NORM, "y = SimplifiedLayerNormalization(x, g, epsilon=1e-6)", RMS),
    ("com.microsoft", "SkipLayerNormalization"): (
        NORM,
        "y = com.microsoft.SkipLayerNormalization(x, x, g, b, epsilon=1e-5)",
        "y = LayerNormalization(Add(x, x), g, b)",
    ),
    ("", "Attention"): (HEADS, "y = Attention(x, x, x, m, scale=0.125, q_num_heads=12, kv_num_heads=12)", ATTENTION),
    ("com.microsoft", "MultiHeadAttention"): (
        HEADS,
        "y = com.microsoft.MultiHeadAttention(x, x, x, _, _, m, num_heads=12, scale=0.125)",
        ATTENTION,
    ),
}
"""By (domain, op): the frame of a model, the kernel in it, and its parts."""


def model(frame: str, body: str) -> bytes:
    built = parse(frame.format(body), opset=23)
    infer(built)
    proto = model_to_proto(built)
    return proto.SerializeToString()


def cost(runner: Runner, frame: str, new: str, parts: str, batch: int, provider: str) -> float:
    """Median time of the kernel divided by that of its parts."""
    width = 3072 if frame is WIDE else 768
    feeds: dict[str, Any] = {"x": np.random.default_rng(0).normal(size=(batch, 128, width)).astype(np.float32)}
    if frame is HEADS:
        feeds["m"] = np.zeros((batch, 1, 128, 128), np.float32)
    bodies = (new, parts)
    sessions = [runner.load(model(frame, body), optimize=False, provider=provider) for body in bodies]
    kernel, alone = runner.time(sessions, feeds, runs=RUNS, warmup=3)
    return float(np.median(kernel) / np.median(alone))


@click.command(help=__doc__)
@click.argument("name", default="ort-cpu")
def main(name: str) -> None:
    target = target_named(name)
    table = Table("kernel", "batch 1", "batch 8", "table", "")
    with Runner() as runner:
        for key, entry in target.kernels.items():
            if key not in KERNELS:
                table.add_row(".".join(filter(None, key)), "-", "-", f"{entry.cost:g}", "not timed here")
                continue
            try:
                costs = [cost(runner, *KERNELS[key], batch, target.provider) for batch in (1, 8)]
            except RunError as error:
                table.add_row(".".join(filter(None, key)), "-", "-", f"{entry.cost:g}", error.message)
                continue
            off = abs(entry.cost / np.mean(costs) - 1) > 0.25
            table.add_row(
                ".".join(filter(None, key)), *(f"{c:.2f}" for c in costs), f"{entry.cost:g}", "?" if off else ""
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
