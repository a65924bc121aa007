"""Where a command writes that was not told where."""

from __future__ import annotations

from pathlib import Path

from graphopt.errors import UsageError


def beside(model: str, suffix: str) -> Path | None:
    """`model.fused.onnx` for `model.onnx` and `.fused.onnx`; None for what cannot be a file.

    Raises: UsageError GO011 where that is a link: it came with the model, and leads to whatever its author likes.
    """
    path = Path(model)
    if not path.name:
        return None
    target = path.with_suffix(suffix)
    if target.is_symlink():
        raise UsageError("GO011", "the output would replace what a link leads to", str(target), "name it with --output")
    return target
