"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from graphopt.errors import GraphoptError, InconclusiveError, RuleError, RuntimeCrash, UnequalError, UsageError, near
from graphopt.ir import Model, model_from_proto, save
from graphopt.ir.load import read_proto
from graphopt.ir.save import External, check_output
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import Progress, optimize
from graphopt.pipeline.result import Result, Rewrite
from graphopt.pipeline.rulebook import all_rules
from graphopt.rewrite import CompiledRule, Trace, select
from graphopt.rewrite.engine import SiteKey
from graphopt.targets import Target, target_named
from graphopt.verify import Options, Verification, check, find_guilty

Source = str | os.PathLike[str] | onnx.ModelProto

ASSUMPTIONS = ("no-empty-rows", "right-padding")
"""The promises about inputs that a rule may rely on."""

_ROUNDS = 8
"""How often guilty sites are taken back before the check is called unequal."""
