"""Count what a compiler could find in a model: by what runs, not by what the exported graph looks like.

Three sources, none of which knows a model's name: torch's own functions that are called (softmax of three or more
dimensions and ``scaled_dot_product_attention`` are one attention each), the functions ``apply_rotary*`` of the modules
that the model's classes come from, and leaf modules that compute a norm or an activation by hand, told by what comes
out of them.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FUNCTIONS = {
    "scaled_dot_product_attention": "Attention",
    "multi_head_attention_forward": "Attention",
    "layer_norm": "LayerNormalization",
    "rms_norm": "RMSNormalization",
    "normalize": "RMSNormalization",
    "group_norm": "GroupNormalization",
    "gelu": "Gelu",
    "silu": "Swish",
    "hardswish": "HardSwish",
    "mish": "Mish",
}
"""What a function of torch means, by its name."""

ACTIVATIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "Gelu": (functional.gelu, lambda x: functional.gelu(x, approximate="tanh")),
    "Swish": (functional.silu, lambda x: x * torch.sigmoid(1.702 * x)),
    "HardSwish": (functional.hardswish,),
    "Mish": (functional.mish,),
}


@dataclass(frozen=True)
class Run:
    """A module that made y of x, of one shape."""

    module: torch.nn.Module
    x: Tensor
    y: Tensor


class Calls(TorchFunctionMode):
    """Counts the calls of torch's functions; what a counted function calls itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in FUNCTIONS:
            self.counts[FUNCTIONS[name]] += 1
        elif name == "softmax" and args[0].ndim > 2:
            self.counts["Attention"] += 1
        return func(*args, **(kwargs or {}))


def count(model: torch.nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, int]:
    """How often each meaning ran on these inputs, by the names of ``graphopt.pipeline.meanings``."""
    runs: list[Run] = []
    with Calls() as calls, ExitStack() as stack:
        for namespace in {type(part).__module__ for part in model.modules()}:
            stack.enter_context(rotations(sys.modules[namespace], calls.counts))
        for part in model.modules():
            if not list(part.children()):
                stack.enter_context(watch(part, calls.counts, runs))
        model(**inputs)
    calls.counts.update(meaning for meaning in map(told, runs) if meaning)
    return dict(sorted(calls.counts.items()))


@contextmanager
def rotations(namespace: Any, counts: Counter[str]) -> Iterator[None]:
    """Count the tensors that the namespace's functions ``apply_rotary*`` return."""

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            rotated = function(*args, **kwargs)
            counts["RotaryEmbedding"] += 1 if isinstance(rotated, Tensor) else len(rotated)
            return rotated

        return call

    found = {name: value for name, value in vars(namespace).items() if name.startswith("apply_rotary")}
    with patch.dict(vars(namespace), {name: counted(value) for name, value in found.items()}):
        yield


@contextmanager
def watch(module: torch.nn.Module, counts: Counter[str], runs: list[Run]) -> Iterator[None]:
    """Note each run of a leaf module that called no counted function."""
    before: list[int] = []

    def start(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
        before.append(counts.total())

    def end(_: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        x = args[0] if args and before.pop() == counts.total() else None
        if isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape:
            runs.append(Run(module, x, output))

    handles = (module.register_forward_pre_hook(start), module.register_forward_hook(end))
    yield
    for handle in handles:
        handle.remove()


def told(run: Run) -> str | None:
    """The norm or activation that makes y of x, if one does: x/rms(x) · g or · (1 + g), GELU, x · sigmoid(αx)."""
    gains = list(run.module.parameters())
    if [gain.shape for gain in gains] == [run.x.shape[-1:]] and run.x.is_floating_point():
        unit = run.x * torch.rsqrt(run.x.square().mean(-1, keepdim=True) + 1e-6)
        return "RMSNormalization" if any(close(unit * gain, run.y) for gain in (gains[0], 1 + gains[0])) else None
    if not gains and run.x.is_floating_point():
        return next((name for name, forms in ACTIVATIONS.items() if any(close(f(run.x), run.y) for f in forms)), None)
    return None


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether the two agree but for rounding and the size of an epsilon."""
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())
