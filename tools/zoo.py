"""Export transformers models to ONNX by architecture, exporter, attention implementation and opset.

A name reads ``<architecture>-<size>.<exporter>.<attention>.<opset>``: ``bert-tiny.dynamo.sdpa.20``. One export is

- ``<name>.onnx``, with ``<name>.onnx.data`` beside it where the exporter keeps weights outside the model, and
- ``<name>.npz``, torch's own inputs and outputs: arrays ``<case>/in/<input>`` and ``<case>/out/<output>`` where a case
  is a shape and a kind of mask, such as ``3x37.left``.

An export need not agree with torch on a fully masked row (``empty``): the dynamo exporter writes the boolean mask of
sdpa as the lowest float, which gives uniform weights where torch gives zeros. The eager model's outputs fit it.

Weights are seeded by architecture and size, so all exports of one model carry the same numbers, and drawn so that each
one shows in the outputs. At a library's own initialisation softmax is flat, biases are zero and gains are one, and most
mistakes of a compiler cancel.
"""

import fnmatch
import itertools
import logging
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from transformers import AutoConfig, AutoModel
from transformers.pytorch_utils import Conv1D

Tensors = dict[str, torch.Tensor]
Shape = tuple[int, ...]

ATTENTIONS = ("eager", "sdpa")
EXPORTERS = {"ts": 17, "dynamo": 20}
"""Exporters and the opset each writes unless told otherwise (20 is the default of ``torch.onnx.export``)."""

MASKS = ("full", "right", "left", "hole", "empty")
TEXT_SHAPES = ((2, 16), (3, 37))
IMAGE_SHAPES = ((2, 3, 32, 32), (3, 3, 32, 32))

TINY = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FFN = {"intermediate_size": 128, "max_position_embeddings": 64}
IMAGE = {"image_size": 32, "patch_size": 8}


@dataclass(frozen=True)
class Architecture:
    """The inputs an export of this model type takes and, per size, what differs from its default configuration."""

    inputs: tuple[str, ...]
    sizes: Mapping[str, Mapping[str, Any]]


PLAIN = ("input_ids", "attention_mask")
PAIRED = (*PLAIN, "token_type_ids")

ZOO = {
    "bert": Architecture(PAIRED, {"tiny": TINY | FFN, "base": {}}),
    "distilbert": Architecture(PLAIN, {"tiny": TINY | {"hidden_dim": 128, "max_position_embeddings": 64}, "base": {}}),
    "roberta": Architecture(PLAIN, {"tiny": TINY | FFN, "base": {}}),
    "electra": Architecture(PAIRED, {"tiny": TINY | FFN | {"embedding_size": 32}, "base": {}}),
    "vit": Architecture(("pixel_values",), {"tiny": TINY | {"intermediate_size": 128} | IMAGE}),
    "gpt2": Architecture(PLAIN, {"tiny": TINY | {"n_positions": 64}, "base": {}}),
}


@dataclass(frozen=True)
class Variant:
    """One export: which model, at which size, written by which exporter."""

    architecture: str
    size: str
    exporter: str
    attention: str
    opset: int

    @property
    def model(self) -> str:
        """Architecture and size: what decides the weights."""
        return f"{self.architecture}-{self.size}"

    def __str__(self) -> str:
        return f"{self.model}.{self.exporter}.{self.attention}.{self.opset}"


def variants(opset: int | None = None) -> Iterator[Variant]:
    """Every export of the table, at the exporters' own opsets or at ``opset``."""
    for architecture, entry in ZOO.items():
        for size, exporter, attention in itertools.product(entry.sizes, EXPORTERS, ATTENTIONS):
            yield Variant(architecture, size, exporter, attention, opset or EXPORTERS[exporter])


def select(names: tuple[str, ...], opset: int | None) -> list[Variant]:
    """What the names, leading parts of names or globs pick; ``click.UsageError`` where one picks nothing."""
    chosen: dict[Variant, None] = {}
    for name in names:
        globs = (name, f"{name}-*", f"{name}.*")
        hits = [v for v in variants(opset) if any(fnmatch.fnmatchcase(str(v), glob) for glob in globs)]
        if not hits:
            raise click.UsageError(f"no export is called '{name}'; 'list' prints them")
        chosen |= dict.fromkeys(hits)
    return list(chosen)


def build(variant: Variant) -> torch.nn.Module:
    """The model in inference mode, with visible weights."""
    config = AutoConfig.for_model(variant.architecture, **ZOO[variant.architecture].sizes[variant.size])
    config.return_dict = False
    config.use_cache = False
    model: torch.nn.Module = cast(Any, AutoModel).from_config(config, attn_implementation=variant.attention)
    make_visible(model, zlib.crc32(variant.model.encode()))
    return model.eval()


@torch.no_grad()
def make_visible(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew: weights N(0, 1/fan_in), biases N(0, .1²), gains 1 + N(0, .1²), tables N(0, .6²)."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            mean, std = distribution(module, name, parameter)
            parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))


def distribution(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of one parameter of ``module``."""
    if name == "bias":
        return 0.0, 0.1
    if isinstance(module, torch.nn.LayerNorm):
        return 1.0, 0.1
    if isinstance(module, Conv1D):
        return 0.0, parameter.shape[0] ** -0.5
    if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
        return 0.0, parameter[0].numel() ** -0.5
    return 0.0, 0.6  # token, position and segment tables: a sum of three has unit variance


def cases(variant: Variant) -> Iterator[tuple[str, Tensors]]:
    """Named feeds: two shapes, each with every kind of mask where the model takes one."""
    names = ZOO[variant.architecture].inputs
    masked = "attention_mask" in names
    for shape in TEXT_SHAPES if masked else IMAGE_SHAPES:
        for kind in MASKS if masked else ("full",):
            yield f"{'x'.join(map(str, shape))}.{kind}", {name: feed(variant, name, shape, kind) for name in names}


def feed(variant: Variant, name: str, shape: Shape, kind: str) -> torch.Tensor:
    """One input: ids in the vocabulary, segments 0 and 1, a mask of 0 and 1 (all int64), or pixels (float32)."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name}{shape}".encode()))
    if name == "pixel_values":
        return torch.randn(shape, generator=generator)
    if name == "attention_mask":
        return mask(shape, kind)
    lowest = 2 if name == "input_ids" else 0  # RoBERTa counts positions by the padding id, 1
    high = 128 if name == "input_ids" else 2
    return torch.randint(lowest, high, shape, generator=generator)


def mask(shape: Shape, kind: str) -> torch.Tensor:
    """A mask (B, S) of int64 in which row r hides S/4 + r positions at the kind's place; 'empty' hides all of row 0."""
    rows, length = shape
    allowed = torch.ones(shape, dtype=torch.int64)
    for row in range(rows if kind != "full" else 0):
        hidden = length // 4 + row
        start = {"right": length - hidden, "left": 0, "hole": length // 3, "empty": length - hidden}[kind]
        allowed[row, start : start + hidden] = 0
    if kind == "empty":
        allowed[0] = 0
    return allowed


def export(variant: Variant, folder: Path) -> Path:
    """Write one export with torch's outputs into ``folder`` and return the model's path; what exists is kept."""
    target = folder / f"{variant}.onnx"
    if target.exists():
        return target
    model = build(variant)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        outputs = reference(model, variant, Path(scratch, f"{variant}.npz"))
        write_onnx(model, variant, outputs, Path(scratch, target.name))
        for part in sorted(Path(scratch).iterdir(), key=lambda path: path.suffix == ".onnx"):
            part.replace(folder / part.name)  # the model last: where it stands, its data stands
    return target


@torch.no_grad()
def reference(model: torch.nn.Module, variant: Variant, path: Path) -> list[str]:
    """Save torch's inputs and outputs for every case; returns the names of the outputs."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    names: list[str] = []
    for case, inputs in cases(variant):
        named = model(**inputs, return_dict=True)
        names = list(named)
        arrays |= {f"{case}/in/{name}": value.numpy() for name, value in inputs.items()}
        arrays |= {f"{case}/out/{name}": value.numpy() for name, value in named.items()}
    np.savez(path, allow_pickle=False, **arrays)
    return names


def write_onnx(model: torch.nn.Module, variant: Variant, outputs: list[str], path: Path) -> None:
    """Run the exporter with dynamic batch and sequence axes."""
    _, example = list(cases(variant))[-1]
    names = {name: {0: "batch", 1: "sequence"} if value.ndim == 2 else {0: "batch"} for name, value in example.items()}
    dims = {name: torch.export.Dim(name, min=1, max=64) for name in ("batch", "sequence")}
    shapes = {name: {axis: dims[label] for axis, label in axes.items()} for name, axes in names.items()}
    how: dict[str, Any] = {
        "dynamo": {"model": model, "kwargs": example, "dynamic_shapes": shapes},
        "ts": {"model": InOrder(model, example), "args": tuple(example.values()), "dynamic_axes": names},
    }[variant.exporter]
    torch.onnx.export(
        f=path,
        input_names=list(example),
        output_names=outputs,
        opset_version=variant.opset,
        dynamo=variant.exporter == "dynamo",
        verbose=False,
        **how,
    )


class InOrder(torch.nn.Module):
    """A model that takes its inputs in the order of ``names``: tracing transformers' decorated ``forward`` fails."""

    def __init__(self, model: torch.nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs of ``model``."""
        return self.model(**dict(zip(self.names, inputs, strict=True)))


@click.group()
def main() -> None:
    """Exports of real transformers, for tests and benchmarks."""


@main.command("list")
def list_variants() -> None:
    """Print the name of every export at the exporters' own opsets."""
    for variant in variants():
        click.echo(str(variant))


@main.command("export")
@click.argument("names", nargs=-1, required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the exports.")
@click.option("--opset", type=int, help="Write this opset instead of the exporters' own.")
def export_variants(names: tuple[str, ...], out: Path, opset: int | None) -> None:
    """Export what NAMES pick: full names, leading parts (bert, bert-tiny.ts) or globs. What exists is kept."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for variant in select(names, opset):
        click.echo(str(export(variant, out)))


if __name__ == "__main__":
    main()
