"""A test to paste: it fails as long as a rule is wrong on the case that was found."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphopt.ir import IR_DOMAIN, Model
from graphopt.ir.text import to_text
from graphopt.rewrite import CompiledRule
from graphopt.verify import Blamed

_MOST_WRITTEN = 512
"""Elements of a constant that stand in the text of a test; where there are more, it reads the file."""
_MOST_FED = 64

_TEST = '''"""{title}

{reason}
"""

from pathlib import Path

from graphopt.testing import assert_keeps
{imported}
HERE = Path(__file__).parent
{case}

def test_{name}() -> None:
    assert_keeps(
        {arguments}
    )
'''


def test_of(
    model: Model, feed: Mapping[str, Any], rule: CompiledRule | None, blamed: Blamed, assume: frozenset[str]
) -> str:
    """The text of a test that what is blamed keeps what `model` computes on `feed`.

    It stands beside `case.onnx` and `inputs.npz`, which it reads where they are too large to be written.
    """
    text = to_text(model, most=_MOST_WRITTEN)
    internal = any(node.domain == IR_DOMAIN for node in model.graph.ops())
    written = "data(" not in text or internal
    imported, arguments = _rule(rule)
    arguments = ["CASE" if written else 'HERE / "case.onnx"', *arguments, f"inputs={_fed(feed)}"]
    if assume:
        arguments.append(f"assume={sorted(assume)}")
    case = f'CASE = """\n{text}"""\n' if written else ""
    name = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", blamed.site.rule)).lower()
    return _TEST.format(
        title=f"{blamed.site.rule} changed what a model computes at '{blamed.site.root}'.",
        reason=blamed.reason,
        imported=imported,
        case=case,
        name=f"{name}_keeps_the_numbers",
        arguments="\n        ".join(f"{argument}," for argument in arguments),
    )


def _rule(rule: CompiledRule | None) -> tuple[str, list[str]]:
    """How a test comes by a rule: what it imports, and what it says. Without a rule all of them are meant."""
    if rule is None:
        return "", ["None"]
    kind = type(rule.rule)
    if kind.__module__.replace(".", "").isidentifier():
        return f"from {kind.__module__} import {rule.name}\n", [rule.name]
    return "", [f'"{rule.name}"', f'rules=["{inspect.getsourcefile(kind)}"]']


def _fed(feed: Mapping[str, Any]) -> str:
    arrays = [np.asarray(array) for array in feed.values()]
    plain = all(array.dtype.kind in "fiub" and bool(np.isfinite(array).all()) for array in arrays)
    if plain and sum(array.size for array in arrays) <= _MOST_FED:
        return repr({name: _listed(np.asarray(array)) for name, array in feed.items()})
    return 'HERE / "inputs.npz"'


def _listed(array: Any) -> Any:
    """Nested lists, of floats the shortest decimals that are read back as the same numbers."""
    if array.ndim:
        return [_listed(row) for row in array]
    return float(str(array)) if array.dtype.kind == "f" else array.item()
