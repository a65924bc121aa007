"""Where the nodes of a candidate ran: a provider that was asked for is checked only by what it ran itself.

onnxruntime gives nodes for which a provider has no kernel to the CPU, and says nothing. Sizes and other small integers
belong there; a fused operator that ended up there was not checked on the provider, however well its numbers agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from graphopt.errors import GraphoptError
from graphopt.ir import Node
from graphopt.runtime import PROVIDERS, Kernel
from graphopt.verify.results import ORDER, Comparison, ProviderResult, worst

Op = tuple[str, str]
"""An operator's domain and name."""

_COPIES = ("MemcpyFromHost", "MemcpyToHost")
_EXACT = {"cuda": "TF32 off"}


def fused_ops(before: Iterable[Node], after: Iterable[Node]) -> frozenset[Op]:
    """The operators that a rewrite wrote: those of `after` that are not standard, or that `before` does not have."""
    known = {(node.domain, node.op) for node in before if not node.domain}
    return frozenset((node.domain, node.op) for node in after) - known - {("", "Identity")}


def not_needed(providers: Collection[str]) -> str:
    """What is said where structure decides; nothing where none but the CPU was asked for."""
    return "" if {"cpu"}.issuperset(providers) else f"nothing had to run on {', '.join(providers)}"


def elsewhere(profile: Callable[[], Sequence[Kernel]], provider: str, fused: Sequence[Collection[Op]]) -> list[str]:
    """For each of some parts of a candidate, with its fused operators, why it was not checked on `provider`.

    Empty where it was. `profile` tells the kernels of all parts; of the CPU it is not asked.
    """
    if provider == "cpu":
        return [""] * len(fused)
    try:
        kernels = profile()
    except GraphoptError as error:
        return [f"where its nodes ran cannot be told: {error.message}"] * len(fused)
    return [complaint(provider, kernels, ops) for ops in fused]


def complaint(provider: str, kernels: Sequence[Kernel], fused: Collection[Op]) -> str:
    """Why a run of these kernels is none of `fused` on `provider`; empty where it is."""
    wanted = PROVIDERS[provider]
    if not kernels:
        return f"nothing ran on {wanted}"
    strays = [kernel for kernel in kernels if kernel.provider != wanted]
    ran = [kernel for kernel in kernels if kernel.provider == wanted and kernel.op not in _COPIES]
    # A standard operator that computes sizes, or one number, belongs on the CPU, whoever wrote it.
    parts = [kernel for kernel in strays if kernel.floats > 1 or kernel.domain]
    for kernel in parts:
        if any(kernel.op == op and kernel.domain in (domain, None) for domain, op in fused):
            return f"'{kernel.op}' ran on {kernel.provider}"
    known = {kernel.op for kernel in kernels}
    expanded = sorted(op for _, op in fused if op not in known)
    if expanded and parts:
        return f"'{expanded[0]}' was spelled in parts, and '{parts[0].op}' ran on {parts[0].provider}"
    return f"nothing ran on {wanted}" if parts and not ran else ""


def counted(found: Comparison, complaint: str) -> Comparison:
    """What was found, but that agreement does not count where there is a complaint."""
    return replace(found, verdict="skipped", reason=complaint) if complaint and found.verdict == "equal" else found


def over_providers(found: Mapping[str, Comparison]) -> Comparison:
    """What providers show together, by name: the worst one, with a line for each where there are several."""
    first = min(found.values(), key=lambda one: ORDER.index(one.verdict))
    several = len(found) > 1
    lines = tuple(ProviderResult(name, one.verdict, one.reason) for name, one in found.items())
    return replace(first, providers=lines) if several else first


def provider_result(name: str, results: Iterable[Comparison]) -> ProviderResult:
    """What a provider shows in all results, and how exactly it computed, where that may be asked."""
    own = [next((line for line in one.providers if line.name == name), one) for one in results]
    verdict = worst(one.verdict for one in own) if own else "inconclusive"
    reason = next((one.reason for one in own if one.verdict == verdict), "") if verdict == "skipped" else ""
    return ProviderResult(name, verdict, "; ".join(filter(None, [reason, _EXACT.get(name)])))
