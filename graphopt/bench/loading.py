"""What a session of a model is created from, wherever the model is: in a file, in bytes, in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graphopt.ir import Model, Source, load
from graphopt.runtime import External, Runner, Session
from graphopt.verify.weights import Weights

Timed = bytes | Source | Model
"""A model to run: a file, the bytes of one, a proto, a graph of onnx-graphsurgeon, or one that is loaded."""


@dataclass(frozen=True)
class Loadable:
    """The arguments of `Runner.load` that say which model it is."""

    name: str
    model: bytes | Path
    external: Mapping[str, External]
    base: Path | None

    def open(self, runner: Runner, *, provider: str, threads: int, profile: bool = False) -> Session:
        """onnxruntime's default session of it. Raises what `Runner.load` raises."""
        return runner.load(
            self.model,
            optimize=True,
            provider=provider,
            threads=threads,
            external=self.external,
            base=self.base,
            profile=profile,
            name=self.name,
        )


def loadable(model: Timed, weights: Weights, name: str = "") -> Loadable:
    """`model` as onnxruntime takes it; a file it reads itself, of another its weights lie where `weights` says.

    Raises: what `load` raises for a proto that is no model.
    """
    if isinstance(model, bytes):
        return Loadable(name or f"a model of {len(model)} bytes", model, {}, None)
    if isinstance(model, (str, os.PathLike)):
        return Loadable(name or str(model), Path(model), {}, None)
    loaded = model if isinstance(model, Model) else load(model)
    return Loadable(name or str(loaded.path or "model"), *weights.whole(loaded))
