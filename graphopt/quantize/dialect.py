"""What a target reads of quantized models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """`signed`: activations are int8, all zero points are zero, weights of 8 bits have a scale for each channel, and a
    convolution writes floats: the target takes the rounding of what reads them into its kernel, and has none of bytes
    alone. `dynamic`: ranges may be found at run time. `contrib`: onnxruntime's own operators are there."""

    signed: bool = False
    dynamic: bool = True
    contrib: bool = True


def dialect_of(target: str) -> Dialect:
    """The dialect of the target called `target`; onnxruntime's on a CPU for a table of the user's own."""
    match target:
        case "tensorrt":
            return Dialect(signed=True, dynamic=False, contrib=False)
        case "ort-cuda":
            return Dialect(signed=True)
        case "onnx":
            return Dialect(contrib=False)
    return Dialect()
