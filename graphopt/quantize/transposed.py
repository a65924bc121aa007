"""Which transposed convolutions have an integer form."""

from __future__ import annotations

from collections.abc import Iterable

from graphopt.ir import Node


def no_integers(node: Node) -> str:
    """Why a ConvTranspose has no integer form; empty where it has one.

    onnxruntime has no integer kernel for it, but for a convolution of single places, and that it is where no two
    windows meet, on images of known height and width.
    """
    image, weights = node.input(0), node.input(1)
    if image is None or weights is None or weights.shape is None or len(weights.shape) != 4:
        return "of transposed convolutions only those of images with two dimensions have integer kernels"
    steps = list(node.attr("strides", (1, 1)))
    if list(weights.shape[2:]) != steps:
        return f"its windows of {_sizes(weights.shape[2:])} in steps of {_sizes(steps)} overlap or leave gaps"
    moved = any(node.attr("pads", ())) or any(node.attr("output_padding", ())) or node.attr("output_shape") is not None
    if moved or node.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "a transposed convolution with padding has no integer kernel"
    if node.attr("group", 1) != 1 or any(step != 1 for step in node.attr("dilations", ())):
        return "a transposed convolution in groups or with dilations has no integer kernel"
    if image.shape is None or not all(isinstance(size, int) for size in image.shape[2:]):
        return "the height and width of its image are not known in the model"
    return ""


def _sizes(sizes: Iterable[object]) -> str:
    return "×".join(map(str, sizes))
