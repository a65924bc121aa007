"""Results of `quantize` that nothing was run for: a MiniLM-L6 as it comes out, and one where much went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import parser

from graphopt.bench import Ratio
from graphopt.errors import UnequalError
from graphopt.ir import load
from graphopt.pipeline.quantized import Accuracy, Quantized, SiteResult, Step

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"><b>&amp;&lt;",
    "a\u202eb $title ${script} {{x}}",
)
"""Names that a page must show as they are."""

_WIDTH, _INNER = 384, 1536
_INTEGER, _BITS = "com.microsoft.MatMulIntegerToFloat", "com.microsoft.MatMulNBits"
_PRODUCTS = {
    "attention/self/query": ("attention.qkv", (_WIDTH, _WIDTH), 41.2),
    "attention/self/key": ("attention.qkv", (_WIDTH, _WIDTH), 40.1),
    "attention/self/value": ("attention.qkv", (_WIDTH, _WIDTH), 40.6),
    "attention/output/dense": ("attention.out", (_WIDTH, _WIDTH), 42.0),
    "intermediate/dense": ("ffn.up", (_WIDTH, _INNER), 149.5),
    "output/dense": ("ffn.down", (_INNER, _WIDTH), 236.0),
}
_SENSITIVITY = {"attention.qkv": 0.00016, "attention.out": 0.00009, "ffn.up": 0.00021, "ffn.down": 0.00118}


def minilm() -> Quantized:
    """36 products in 4 groups, 30 of them on integer kernels and the last group in weights of 8 bits."""
    sites = tuple(_site(layer, product) for layer in range(6) for product in _PRODUCTS)
    return Quantized(
        model=load(parser.parse_model('<ir_version: 8, opset_import: ["": 17]> m (float x) => (float x) {}')),
        source="models/minilm-l6.onnx",
        output=Path("models/minilm-l6.int8.onnx"),
        target="ort-cpu",
        cpu="x86-vnni",
        mode="auto",
        verdict="equal",
        sites=sites,
        integer_planned=30,
        integer_running=30,
        integer_all=36,
        accuracy=Accuracy("cosine", 0.99934, 0.99811, 128, 0.99941, False, 0.9999993),
        size_before=90_405_214,
        size_after=58_911_020,
        latency=Ratio(0.541, 0.529, 0.556, 25),
        latency_wall=Ratio(0.548, 0.531, 0.570, 25),
        steps=_STEPS,
        notes=("attention's own products stay float: both of their operands are computed",),
        verification=None,
        seconds={"load": 0.4, "rewrite": 0.6, "calibrate": 6.2, "search": 31.5, "verify": 2.8, "save": 0.2},
        observer="mse",
        samples={"calibration": 32, "search": 16, "holdout": 16},
    )


def troubled() -> Quantized:
    """Slower, short of what was asked for, with a site that was not fused and names that are hostile."""
    result = minilm()
    wrong = {
        3: {"kernel": "MatMul", "kernel_reason": "the activation is float16", "micros": 310.0},
        9: {"scheme": "float", "kernel": "MatMul", "reason": "excluded by --exclude"},
    }
    sites = [
        replace(site, integer=index not in wrong and site.integer, **wrong.get(index, {}))
        for index, site in enumerate(result.sites)
    ]
    sites[:4] = [replace(site, name=name, group=name) for site, name in zip(sites, HOSTILE, strict=False)]
    return replace(
        result,
        source=f"models/{HOSTILE[1].replace('/', '')}.onnx",
        output=None,
        sites=tuple(sites),
        integer_running=28,
        latency=Ratio(1.10, 1.06, 1.15, 25),
        latency_wall=Ratio(1.02, 0.97, 1.08, 25),
        notes=HOSTILE,
        errors=(UnequalError("GO141", "the quantized model is slower than the float model", HOSTILE[0], HOSTILE[2]),),
    )


def large(count: int) -> Quantized:
    """As many sites as asked for, in groups of up to 36."""
    result = minilm()
    sites = (result.sites[index % 36] for index in range(count))
    named = (
        replace(site, name=f"/block.{index // 36}{site.name}", group=f"{site.group}.{index // 3600}", micros=index % 97)
        for index, site in enumerate(sites)
    )
    return replace(result, sites=tuple(named), integer_all=count)


def _site(layer: int, product: str) -> SiteResult:
    group, shape, micros = _PRODUCTS[product]
    bits = group == "ffn.down"
    return SiteResult(
        name=f"/encoder/layer.{layer}/{product}/MatMul_output_0",
        op="MatMul",
        group=group,
        scheme="weights8" if bits else "static",
        shape=shape,
        macs=shape[0] * shape[1],
        reason="integers cost more than the budget" if bits else "",
        kernel=_BITS if bits else _INTEGER,
        integer=not bits,
        kernel_reason="",
        micros=micros * (1 + 0.013 * layer),
        sensitivity=_SENSITIVITY[group],
        smooth=0.75 if group in ("attention.qkv", "ffn.up") else None,
        range=None if bits else (-4.31 - layer / 8, 5.07),
    )


_STEPS = (
    Step("all static, min-max", 0.99052, True),
    Step("observer percentile 99.99", 0.92611, False),
    Step("observer mse", 0.99127, True),
    Step("attention.qkv smooth 0.75", 0.99481, True),
    Step("ffn.up smooth 0.75", 0.99798, True),
    Step("ffn.up smooth 0.3", 0.86502, False),
    Step("attention.out smooth 0.5", 0.99779, False),
    Step("bias correction", 0.99823, True),
    Step("ffn.down → weights8", 0.99941, True),
)
