"""What ops mean, whatever they were lowered to: the names under which results are counted."""

from __future__ import annotations

from collections import Counter

from graphopt.ir import Model
from graphopt.ir.fused import DOMAIN as FUSED
from graphopt.ir.node import qualified

_SPELLINGS = {
    "Attention": (
        "Attention",
        "com.microsoft.Attention",
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "com.microsoft.GroupQueryAttention",
        "com.microsoft.MultiHeadAttention",
        "com.microsoft.PackedAttention",
        "com.microsoft.PackedMultiHeadAttention",
        "com.microsoft.QAttention",
    ),
    "LayerNormalization": (
        "LayerNormalization",
        f"{FUSED}.FusedLayerNormMatMul",
        "com.microsoft.EmbedLayerNormalization",
        "com.microsoft.SkipLayerNormalization",
    ),
    "RMSNormalization": (
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "com.microsoft.SkipSimplifiedLayerNormalization",
    ),
    # A group normalization is the instance normalization of its groups, and is lowered to it.
    "GroupNormalization": (
        "GroupNormalization",
        "InstanceNormalization",
        "com.microsoft.GroupNorm",
        "com.microsoft.SkipGroupNorm",
    ),
    "Gelu": (
        "Gelu",
        f"{FUSED}.FusedMatMulAddGelu",
        "com.microsoft.BiasGelu",
        "com.microsoft.FastGelu",
        "com.microsoft.Gelu",
    ),
    "Swish": ("Swish", "com.microsoft.QuickGelu"),
    "HardSwish": ("HardSwish",),
    "Mish": ("Mish",),
    "RotaryEmbedding": ("RotaryEmbedding", "com.microsoft.RotaryEmbedding"),
    "Softmax": ("Softmax",),
}
MEANINGS = {spelling: meaning for meaning, spellings in _SPELLINGS.items() for spelling in spellings}
"""Meaning by op; an op outside the standard domain is written `domain.Op`."""


def count_ops(model: Model) -> Counter[str]:
    """How often each op stands in the model, subgraphs and functions included, but for bodies of `ai.graphopt`."""
    functions = [function.graph for (domain, _, _), function in model.functions.items() if domain != FUSED]
    scopes = (scope for graph in (model.graph, *functions) for scope in graph.scopes())
    return Counter(qualified(node.domain, node.op) for scope in scopes for node in scope.ops())


def count_meanings(ops: Counter[str]) -> dict[str, int]:
    """How often each meaning stands in a model with these ops, by name of the meaning."""
    counts: Counter[str] = Counter()
    for op, number in ops.items():
        if op in MEANINGS:
            counts[MEANINGS[op]] += number
    return dict(sorted(counts.items()))
