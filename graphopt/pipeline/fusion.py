"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx

from graphopt.errors import GraphoptError, RuntimeCrash, UsageError, near
from graphopt.ir import Model, model_from_proto, save
from graphopt.ir.load import read_proto
from graphopt.ir.save import External, check_output
from graphopt.pipeline.data import check_dims, check_inputs, read_inputs
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import Progress, optimize
from graphopt.pipeline.result import Result, Rewrite
from graphopt.pipeline.rulebook import all_rules
from graphopt.pipeline.verdict import error_of
from graphopt.pipeline.watch import Watch
from graphopt.rewrite import CompiledRule, Site, Trace, select
from graphopt.rewrite.engine import SiteKey
from graphopt.runtime import Unavailable
from graphopt.targets import Target, target_named
from graphopt.verify import Options, Verification, check, find_guilty

Source = str | os.PathLike[str] | onnx.ModelProto
Check = Literal["off", "sites", "full"]

_ROUNDS = 8
"""How often guilty sites are taken back before the check is given up."""


def fuse(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    target: str | Target = "ort-cpu",
    verify: Check = "sites",
    only: Iterable[str] = (),
    disable: Iterable[str] = (),
    rules: Iterable[str] = (),
    keep_opset: bool = False,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    providers: Iterable[str] = ("cpu",),
    timeout: float | None = 300.0,
    memory: int | None = None,
    external: External = "auto",
    in_place: bool = False,
    allow_unverified: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Rewrites the model at a path or in a proto for `target`, checks it against the original, and writes it.

    Nothing is written without `output`, with `dry_run`, or when the check finds a difference that cannot be taken back,
    or cannot decide (then `allow_unverified` writes it all the same). Options mean what the command line's do; `only`,
    `disable` and `rules` (files or modules that add rules) are names. Raises: UsageError for a name that is not known
    and for an output that would overwrite the input, ModelError for a model or data that is bad, RuntimeCrash when
    onnxruntime dies or hangs.
    """
    watch = Watch()
    chosen = select(all_rules(rules), only, disable)
    place = target if isinstance(target, Target) else target_named(target)
    with watch("load"):
        opener = _Opener(source)
        original = opener.model()
    if output is not None:
        check_output(original, output, in_place=in_place)
