"""Inputs for whole models: values that respect what each input means, and the user's own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphopt.errors import InconclusiveError, ModelError, UsageError, near
from graphopt.ir import Model, Value, dims, dtypes
from graphopt.ir.tensor import Array
from graphopt.verify.meanings import Meaning, lowest, meanings
from graphopt.verify.results import FedInput
from graphopt.verify.sizes import Binding, shape_under

PLAIN: Final = "plain"
MASKS: Final = ("right-padded", "left-padded", "holes", "empty row", "full")
# Padding on the left leaves rows with nothing allowed where the model is causal.
_WITH_EMPTY_ROWS: Final = ("left-padded", "empty row")
_OVERRIDDEN: Final = "overridden"
_DEFAULT: Final = "default"


@dataclass(frozen=True)
class Feed:
    """One run's inputs. `kind` says what masks look like in it, `kinds` what each input was taken for."""

    kind: str
    seed: int
    arrays: Mapping[str, Any]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the report calls it."""
        shapes = {"x".join(map(str, np.shape(array))) for array in self.arrays.values() if np.ndim(array) > 1}
        return f"{self.kind} {min(shapes, key=lambda shape: (len(shape), shape))}" if shapes else self.kind

    def records(self) -> list[FedInput]:
        """The lines of the report."""
        return [
            FedInput(name, self.label, np.shape(a), str(np.asarray(a).dtype), self.kinds.get(name, ""), self.seed)
            for name, a in self.arrays.items()
        ]


class Feeder:
    """Makes feeds for one model. Inputs that cannot be made raise InconclusiveError GO017 when first asked for."""

    def __init__(self, model: Model, seed: int, assume: frozenset[str] = frozenset()) -> None:
        self._model = model
        self._seed = seed
        self._masks = [kind for kind in MASKS if not ("no-empty-rows" in assume and kind in _WITH_EMPTY_ROWS)]
        self._meanings = meanings(model)
        self._inputs = [node for node in model.graph.inputs if node.op == "Input"]

    def feed(self, kind: str, binding: Binding, number: int = 0) -> Feed:
        """The feed of this kind and these sizes; `number` tells feeds of one kind apart."""
        seed = self._seed * 1000 + number
        rng = np.random.default_rng(seed)
        arrays: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        for node in self._inputs:
            value = node.output
            if node.data is not None and kind != _OVERRIDDEN:
                arrays[value.name], kinds[value.name] = node.data.numpy(), _DEFAULT
            elif node.data is not None:
                arrays[value.name], kinds[value.name] = _other(node.data.numpy(), rng), _OVERRIDDEN
            else:
                meaning = self._meanings[value.name]
                try:
                    arrays[value.name] = _array(self._model, value, meaning, kind, binding, rng)
                except MemoryError as error:
                    message = f"the input '{value.name}' does not fit into memory"
                    where = str(self._model.path or "model")
                    raise InconclusiveError("GO017", message, where, "bind a smaller size with --dim") from error
                kinds[value.name] = _described(meaning, kind)
        return Feed(kind, seed, arrays, kinds)

    def feeds(self, bindings: Sequence[Binding]) -> list[Feed]:
        """Feeds that together show every form of mask, every size, and other values of overridable initializers."""
        values = [node.output for node in self._inputs]
        masks = [value for value in values if self._meanings[value.name].kind in ("mask", "bias")]
        kinds = list(self._masks) if masks else [PLAIN] * 3
        if any(len(mask.shape or ()) > 2 for mask in masks):
            kinds.append("causal")
        if any(node.data is not None for node in self._inputs):
            kinds.append(_OVERRIDDEN)
        return [self.feed(kind, bindings[i % len(bindings)], i) for i, kind in enumerate(kinds)]


def given_feed(model: Model, inputs: Path | Mapping[str, Any]) -> Feed:
    """The user's own arrays, checked against the model's inputs.

    Raises: UsageError GO018 for names, shapes or types that do not fit; ModelError GO024 for an unreadable file.
    """
    where = str(inputs) if isinstance(inputs, Path) else "inputs"
    arrays = _read(inputs) if isinstance(inputs, Path) else {name: np.asarray(a) for name, a in inputs.items()}
    values = {node.output.name: node for node in model.graph.inputs if node.op == "Input"}
    for name in arrays:
        if name not in values:
            raise UsageError("GO018", f"the model has no input '{name}'", where, near(name, values))
    missing = [name for name, node in values.items() if name not in arrays and node.data is None]
    if missing:
        wanted = ", ".join(f"'{name}' {_declared(values[name].output)}" for name in missing)
        raise UsageError("GO018", f"no array for the input {wanted}", where, "one array for each input, by its name")
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        _fits(values[name].output, array, sizes, where)
    defaults = {n: node.data.numpy() for n, node in values.items() if n not in arrays and node.data is not None}
    kinds = {**dict.fromkeys(arrays, "given"), **dict.fromkeys(defaults, _DEFAULT)}
    return Feed("given", 0, {**arrays, **defaults}, kinds)


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of named ones")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UsageError("GO018", "no such file", str(path)) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        hint = "write it with numpy.savez, one array for each input, by its name"
        raise ModelError("GO024", f"the inputs cannot be read: {error}", str(path), hint) from error


def _declared(value: Value) -> str:
    shape = "" if value.shape is None else f"[{', '.join(map(str, value.shape))}]"
    return f"{dtypes.NAMES.get(value.dtype, 'value')}{shape}"


def _fits(value: Value, array: Array, sizes: dict[str, int], where: str) -> None:
    """Raises UsageError where an array is not what the model declares; notes the sizes of named dimensions."""
    problem = f"the input '{value.name}' is {_declared(value)}, the array given is {array.dtype}{list(array.shape)}"
    if value.dtype != dtypes.STRING and value.dtype and array.dtype != dtypes.to_numpy(value.dtype):
        hint = f"convert it: array.astype('{dtypes.NAMES[value.dtype]}')"
        raise UsageError("GO018", problem, where, hint)
    if value.shape is None:
        return
    if len(value.shape) != array.ndim:
        raise UsageError("GO018", problem, where, f"{len(value.shape)} dimensions are wanted")
    for declared, size in zip(value.shape, array.shape, strict=True):
        if isinstance(declared, int) and declared != size:
            raise UsageError("GO018", problem, where, f"a size of {declared} is wanted, not {size}")
        names = dims.symbols(declared)
        if len(names) == 1 and declared == dims.symbol(*names) and sizes.setdefault(str(declared), size) != size:
            raise UsageError("GO018", problem, where, f"'{declared}' is {sizes[str(declared)]} in another array")


def _array(
    model: Model, value: Value, meaning: Meaning, kind: str, binding: Binding, rng: np.random.Generator
) -> Array:
    where = str(model.path or "model")
    hint = "give real inputs with --inputs FILE.npz"
    if value.shape is None or value.dtype == 0:
        what = "the rank of" if value.dtype else "tensors for"
        raise InconclusiveError("GO017", f"{what} the input '{value.name}' cannot be told from the model", where, hint)
    shape = shape_under(value.shape, binding)
    if shape is None:
        raise InconclusiveError("GO017", f"the input '{value.name}' would have a negative size", where, hint)
    if value.dtype == dtypes.STRING:
        return rng.choice(np.array(["a", "bc", ""], object), shape)
    dtype = dtypes.to_numpy(value.dtype)
    match meaning.kind:
        case "index" | "count":
            return rng.integers(meaning.low, meaning.high, shape).astype(dtype)
        case "mask":
            return _kept(kind, shape, rng).astype(dtype)
        case "bias":
            return np.where(_kept(kind, shape, rng), 0.0, lowest(value.dtype)).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def _kept(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Where a mask keeps something: rows along the first axis, positions along the last."""
    if not shape:
        # A flag, such as the condition of an If: both of its branches are to be seen.
        return np.array(kind != "holes")
    rows, length = (shape[0] if len(shape) > 1 else 1), shape[-1]
    position = np.arange(length)
    lengths = rng.integers((length + 1) // 2, max(length, 2), rows)[:, None]
    keep = np.ones((rows, length), bool)
    match kind:
        case "right-padded":
            keep = position < lengths
        case "left-padded":
            keep = position >= length - lengths
        case "holes":
            keep = rng.random((rows, length)) < 0.7
            keep[:, 0] = True
        case "empty row":
            keep = position < lengths
            keep[-1:] = False
    full = np.broadcast_to(keep.reshape(rows, *[1] * (len(shape) - 2), length) if len(shape) > 1 else keep[0], shape)
    if kind == "causal" and len(shape) > 2:
        full = full & np.tri(shape[-2], length, length - shape[-2], dtype=bool)
    return np.array(full)


def _other(default: Array, rng: np.random.Generator) -> Array:
    """Another value of the type of an overridable initializer; integers, which may be sizes, stay."""
    if default.dtype == bool:
        return ~default
    if default.dtype.kind != "f":
        return default
    scale = float(np.std(default)) or float(np.abs(default).max(initial=0)) or 1.0
    return (default + 0.5 * scale * rng.normal(size=default.shape)).astype(default.dtype)


def _described(meaning: Meaning, kind: str) -> str:
    match meaning.kind:
        case "index":
            return f"index in [{meaning.low}, {meaning.high})"
        case "mask":
            return f"mask, {kind}"
        case "bias":
            return f"additive mask, {kind}"
        case "number":
            return "normal"
    return meaning.kind
