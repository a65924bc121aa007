"""Write one export of the zoo: the model, torch's own inputs and outputs, and what a compiler could find in it."""

import json
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from zoo_ideal import count
from zoo_inputs import Tensors, cases
from zoo_models import ZOO, Entry
from zoo_modules import flatten
from zoo_weights import make_visible

EXPORTERS = {"ts": 17, "dynamo": 20}
"""Exporters and the opset each writes unless told otherwise (20 is the default of ``torch.onnx.export``)."""

ATTENTION_SINCE = 23
"""The opset that has an op for attention."""


@dataclass(frozen=True)
class Variant:
    """One export: which model, with which attention implementation, written by which exporter, in which precision."""

    model: str
    exporter: str
    attention: str
    opset: int
    half: bool = False

    @property
    def entry(self) -> Entry:
        """The model's line in the table."""
        return ZOO[self.model]

    @property
    def fixed(self) -> tuple[str, ...]:
        """The named axes that this exporter keeps at the size of its example."""
        return self.entry.fixed if self.exporter == "ts" else ()

    @property
    def witness(self) -> str:
        """The attention implementation whose outputs the export has.

        Before there is an op for it, the dynamo exporter writes the boolean mask of sdpa as the lowest float. A fully
        masked row then has uniform weights as eager attention has them, where sdpa gives zeros.
        """
        as_floats = self.exporter == "dynamo" and self.opset < ATTENTION_SINCE
        return "eager" if as_floats and "eager" in self.entry.attentions else self.attention

    def cases(self) -> Iterable[tuple[str, Tensors]]:
        """Named feeds, of float32 numbers that float16 can hold where the model is in half precision."""
        for case, inputs in cases(self.entry.inputs, self.fixed):
            yield case, {name: value.half().float() if rounds(value, self) else value for name, value in inputs.items()}

    def __str__(self) -> str:
        return f"{self.model}.{self.exporter}.{self.attention}.{self.opset}{'.f16' if self.half else ''}"


def rounds(value: torch.Tensor, variant: Variant) -> bool:
    """Whether this input is float16 in the export."""
    return variant.half and value.is_floating_point()


def build(variant: Variant) -> torch.nn.Module:
    """The float32 model in inference mode with visible weights, which float16 can hold where the export is half."""
    torch.backends.mha.set_fastpath_enabled(False)  # no exporter knows the kernels of nn.MultiheadAttention
    model = variant.entry.make(variant.attention).requires_grad_(False).eval()
    make_visible(model, zlib.crc32(variant.model.encode()))
    return model.half().float() if variant.half else model


def export(variant: Variant, folder: Path) -> Path:
    """Write one export and what belongs to it into ``folder`` and return the model's path; what exists is kept."""
    target = folder / f"{variant}.onnx"
    if target.exists() and target.with_suffix(".json").exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    model, witness = build(variant), build(replace(variant, attention=variant.witness))
    arrays = reference(witness, variant)
    facts: dict[str, Any] = {"ideal": ideal(model, variant), "alone": dict(variant.entry.alone)}
    if variant.half:
        facts["floor"] = floor(witness.half(), variant, arrays)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        (scratch / f"{variant}.json").write_text(json.dumps(facts, indent=1) + "\n")
        if not target.exists():
            np.savez(scratch / f"{variant}.npz", allow_pickle=False, **arrays)
            write_onnx(model.half() if variant.half else model, variant, scratch / target.name)
        for part in sorted(scratch.iterdir(), key=lambda path: path.suffix == ".onnx"):
            part.replace(folder / part.name)  # the model last: where it stands, its data stands
    return target


@torch.no_grad()
def reference(model: torch.nn.Module, variant: Variant) -> dict[str, np.ndarray[Any, Any]]:
    """Torch's inputs and outputs of every case in which its outputs are numbers."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for case, inputs in variant.cases():
        outputs = flatten(model(**inputs))
        if all(value.isfinite().all() for value in outputs.values()):
            fed = {name: value.half() if rounds(value, variant) else value for name, value in inputs.items()}
            arrays |= {f"{case}/in/{name}": value.numpy() for name, value in fed.items()}
            arrays |= {f"{case}/out/{name}": value.numpy() for name, value in outputs.items()}
    return arrays


@torch.no_grad()
def ideal(model: torch.nn.Module, variant: Variant) -> dict[str, int]:
    """How often each meaning stands in the model: counted while torch runs it, unless the table says it."""
    _, inputs = next(iter(variant.cases()))
    return count(model, inputs) | dict(variant.entry.ideal)


@torch.no_grad()
def floor(model: torch.nn.Module, variant: Variant, arrays: dict[str, np.ndarray[Any, Any]]) -> float:
    """The largest error of torch's own half model against the reference, as a share of the rms of the output.

    Without the fully masked rows, for which half and single precision have other lowest numbers.
    """
    worst = 0.0
    for case, inputs in variant.cases():
        fed = {name: value.half() if rounds(value, variant) else value for name, value in inputs.items()}
        for name, value in flatten(model(**fed)).items() if not case.endswith("empty") else ():
            expected = torch.from_numpy(arrays[f"{case}/out/{name}"])
            worst = max(worst, float((value.float() - expected).abs().max() / expected.square().mean().sqrt()))
    return worst


def write_onnx(model: torch.nn.Module, variant: Variant, path: Path) -> None:
    """Run the exporter with every named axis dynamic, but those that it cannot keep so."""
    *_, (_, inputs) = variant.cases()
    example = {name: value.half() if rounds(value, variant) else value for name, value in inputs.items()}
    axes = {
        name: {i: axis for i, axis in enumerate(entry.axes) if isinstance(axis, str) and axis not in variant.fixed}
        for name, entry in variant.entry.inputs.items()
    }
    dynamo = variant.exporter == "dynamo"
    torch.onnx.export(
        InOrder(model, example),
        tuple(example.values()),
        path,
        input_names=list(example),
        output_names=list(flatten(model(**example))),
        opset_version=variant.opset,
        dynamo=dynamo,
        verbose=False,
        **({"dynamic_shapes": {"inputs": tuple(axes.values())}} if dynamo else {"dynamic_axes": axes}),
    )


class InOrder(torch.nn.Module):
    """A model that takes its inputs in the order of ``names`` and gives its outputs in a tuple."""

    def __init__(self, model: torch.nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of ``model``."""
        return tuple(flatten(self.model(**dict(zip(self.names, inputs, strict=True)))).values())
