"""What is known of an operator: its schema, by domain and version.

Standard and `ai.onnx.*` operators come from the installed onnx; contrib operators and our own `ir` ones from the table
at the end. A table entry lists only what a rule or type inference asks for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx.defs import OpSchema

from graphopt.ir import fused
from graphopt.ir.attributes import decode_one
from graphopt.ir.node import IR_DOMAIN

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Signature:
    """Names of inputs, and the default of each attribute (None: no default)."""

    inputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@functools.cache
def onnx_schema(domain: str, op: str, version: int) -> OpSchema | None:
    """The newest schema of `op` that is not newer than `version`; None where onnx knows none."""
    try:
        return onnx.defs.get_schema(op, version, domain) if version > 0 else None
    except onnx.defs.SchemaError:
        return None


@functools.cache
def signature(domain: str, op: str, version: int) -> Signature | None:
    """The signature of an operator; None for one that nobody here knows."""
    known = _TABLE.get((domain, op)) or _fused(domain, op)
    if known is not None:
        return known
    schema = onnx_schema(domain, op, version)
    if schema is None:
        return None
    defaults = {name: _default(attribute) for name, attribute in schema.attributes.items()}
    return Signature(tuple(parameter.name for parameter in schema.inputs), defaults)


def _fused(domain: str, op: str) -> Signature | None:
    one = fused.fused_ops().get(op) if domain == fused.DOMAIN else None
    return Signature(one.inputs, dict(one.attributes)) if one is not None else None


def _default(attribute: OpSchema.Attribute) -> Any:
    proto = attribute.default_value
    return decode_one(proto) if proto.type else None


def attribute_default(domain: str, op: str, version: int, name: str) -> Any:
    """The schema's default of an attribute; None where there is none."""
    known = signature(domain, op, version)
    return known.attributes.get(name) if known is not None else None


@functools.cache
def first_version(domain: str, op: str) -> int:
    """The first opset version that has the operator; 1 where onnx knows none."""
    return min((schema.since_version for schema in history(domain, op)), default=1)


def history(domain: str, op: str) -> list[OpSchema]:
    """The schemas of an operator in every version of its domain; none where onnx knows none."""
    return _all_schemas().get((domain, op), [])


def operators(domain: str) -> list[str]:
    """The operators of a domain that have a schema in onnx, an entry in the table here, or a file in `kernels/`."""
    if domain == fused.DOMAIN:
        return sorted(fused.fused_ops())
    return sorted({op for known, op in [*_all_schemas(), *_TABLE] if known == domain})


@functools.cache
def _all_schemas() -> dict[tuple[str, str], list[OpSchema]]:
    found: dict[tuple[str, str], list[OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def is_random(domain: str, op: str) -> bool:
    """Whether two runs of the operator may differ."""
    return (domain, op) in _RANDOM


_RANDOM = {
    ("", op)
    for op in ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
}

_TABLE: dict[tuple[str, str], Signature] = {
    # y = softmax(cap(scale·q·kᵀ) + bias)·v
    (IR_DOMAIN, "Attention"): Signature(
        ("q", "k", "v", "bias", "past_key", "past_value"),
        {"scale": None, "cap": 0.0, "softmax_dtype": 0, "guard": 0, "causal": 0},
    ),
    (MICROSOFT, "MultiHeadAttention"): Signature(
        ("query", "key", "value", "bias", "key_padding_mask", "attention_bias", "past_key", "past_value"),
        {"num_heads": None, "scale": None, "mask_filter_value": -10000.0, "unidirectional": 0},
    ),
    (MICROSOFT, "Attention"): Signature(
        ("input", "weights", "bias", "mask_index", "past", "attention_bias", "past_sequence_length"),
        {
            "num_heads": None,
            "unidirectional": 0,
            "scale": None,
            "qkv_hidden_sizes": None,
            "mask_filter_value": -10000.0,
            "do_rotary": 0,
            "rotary_embedding_dim": 0,
            "past_present_share_buffer": 0,
        },
    ),
    # A kernel of onnxruntime in the standard domain, which onnx does not know.
    ("", "SimplifiedLayerNormalization"): Signature(("X", "scale"), {"axis": -1, "epsilon": 1e-5, "stash_type": 1}),
    (MICROSOFT, "EmbedLayerNormalization"): Signature(
        (
            *("input_ids", "segment_ids", "word_embedding", "position_embedding", "segment_embedding", "gamma", "beta"),
            *("mask", "position_ids"),
        ),
        {"epsilon": 1e-12, "mask_index_type": 0},
    ),
    (MICROSOFT, "SkipLayerNormalization"): Signature(
        ("input", "skip", "gamma", "beta", "bias"),
        {"epsilon": 1e-12},
    ),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): Signature(("input", "skip", "gamma", "bias"), {"epsilon": 1e-12}),
    (MICROSOFT, "RotaryEmbedding"): Signature(
        ("input", "position_ids", "cos_cache", "sin_cache"),
        {"scale": 1.0, "interleaved": 0, "rotary_embedding_dim": 0, "num_heads": 0, "is_packed_batching": 0},
    ),
    (MICROSOFT, "Gelu"): Signature(("X",)),
    (MICROSOFT, "FastGelu"): Signature(("X", "bias")),
    (MICROSOFT, "BiasGelu"): Signature(("A", "B")),
    (MICROSOFT, "QuickGelu"): Signature(("X",), {"alpha": 1.702}),
    (MICROSOFT, "FusedMatMul"): Signature(
        ("A", "B"), {"alpha": 1.0, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0}
    ),
    (MICROSOFT, "MatMulIntegerToFloat"): Signature(
        ("A", "B", "a_scale", "b_scale", "a_zero_point", "b_zero_point", "bias")
    ),
    (MICROSOFT, "MatMulNBits"): Signature(
        ("A", "B", "scales", "zero_points", "g_idx", "bias"),
        {"K": None, "N": None, "bits": 4, "block_size": None, "accuracy_level": 0, "weight_prepacked": 0},
    ),
}
