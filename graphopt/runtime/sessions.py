"""onnxruntime sessions, in the child process. No other module imports onnxruntime, except for tensors.py."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from graphopt.errors import GraphoptError, ModelError
from graphopt.runtime.memory import give_back, resident
from graphopt.runtime.protocol import (
    PLACEHOLDER,
    PROVIDERS,
    TF32,
    Clocked,
    Hello,
    Kernel,
    Load,
    Memory,
    Opened,
    Port,
    RunError,
    Unavailable,
)
from graphopt.runtime.tensors import NARROW, array_from_value, initializer, value_from_array

SMALL = 1 << 16
"""Bytes. Initializers up to this size are copied, so that shape inference and folding can read them."""

_FLOATS = ("float", "float16", "bfloat16", "double")
"""What profiles call the types of floating-point tensors."""

_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : (\w+) : (.*)", re.DOTALL)


@dataclass(slots=True)
class Loaded:
    """A session, what it runs, and the weights it points into."""

    session: ort.InferenceSession
    request: Load
    weights: list[ort.OrtValue]
    optimized: bytes = b""

    def call(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None) -> Callable[[], list[Any]]:
        """A function that runs the session on `feeds` and returns `outputs` (None: all), in that order.

        Types that onnxruntime's numpy bridge does not know go through OrtValues; sequences and strings cannot.
        """
        types = {port.name: port.type for port in (*self.session.get_inputs(), *self.session.get_outputs())}
        wanted = list(outputs) if outputs is not None else [port.name for port in self.session.get_outputs()]
        if not NARROW.keys() & {types.get(name) for name in (*feeds, *wanted)}:
            return lambda: list(self.session.run(wanted, feeds))
        values = {name: value_from_array(np.asarray(feed), types.get(name, "")) for name, feed in feeds.items()}
        return lambda: [array_from_value(v) for v in self.session.run_with_ort_values(wanted, values)]


class Sessions:
    """The requests: each public method is one, and raises a GraphoptError for what went wrong."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        # A folder in which a file called `*` exists: see `_attach`.
        self._blank = scratch / "blank"
        self._blank.mkdir(exist_ok=True)
        (self._blank / PLACEHOLDER).touch()
        self._loaded: dict[int, Loaded] = {}
        self._keys = itertools.count()
        ort.set_default_logger_severity(4)

    def hello(self) -> Hello:
        return Hello(ort.__version__)

    def providers(self) -> tuple[str, ...]:
        """The providers on which a session can be created.

        A build may have one whose libraries or whose device are not there: it says so only on standard error, and runs
        everything on the CPU.
        """
        installed = ort.get_available_providers()
        return tuple(name for name, theirs in PROVIDERS.items() if theirs in installed and self._starts(name))

    def _starts(self, provider: str) -> bool:
        if provider == "cpu":
            return True
        try:
            self.close(self.load(Load(_smallest(), optimize=False, provider=provider)).key)
        except (RunError, Unavailable):
            return False
        return True

    def load(self, request: Load) -> Opened:
        provider = PROVIDERS[request.provider]
        if provider not in ort.get_available_providers():
            raise _unavailable(request.provider)
        model = request.model if isinstance(request.model, bytes) else str(request.model)
        with _errors("load", request):
            options = _options(request, self._scratch / "profile")
            _register(options, request.custom_ops)
            weights = _attach(options, request, self._blank)
            providers = {provider: _provider_options(request.provider), PROVIDERS["cpu"]: {}}
            with _written(options, request, self._scratch) as optimized:
                session = ort.InferenceSession(model, options, list(providers.items()), enable_fallback=0)
        if provider not in session.get_providers():
            raise _unavailable(request.provider)
        key = next(self._keys)
        self._loaded[key] = Loaded(session, request, weights, *optimized)
        return Opened(key, _ports(session.get_inputs()), _ports(session.get_outputs()))

    def run(self, key: int, feeds: Mapping[str, Any], outputs: Sequence[str] | None) -> list[Any]:
        loaded = self._loaded[key]
        with _errors("run", loaded.request):
            return loaded.call(feeds, outputs)()

    def kernels(self, key: int) -> list[Kernel]:
        with _errors("run", self._loaded[key].request):
            return _kernels(self._loaded[key].session)

    def optimized(self, key: int) -> bytes:
        return self._loaded[key].optimized

    def resident(self) -> Memory:
        return resident()

    def clock(self, keys: Sequence[int], feeds: Mapping[str, Any], runs: int, warmup: int) -> list[Clocked]:
        clocked = [Clocked([], []) for _ in keys]
        calls = []
        for key, taken in zip(keys, clocked, strict=True):
            with _errors("run", self._loaded[key].request):
                call = self._loaded[key].call(feeds, None)
                call()
            calls.append((call, taken))
        gc.disable()
        try:
            for index in range(warmup + runs):
                # Alternating the order cancels what a run leaves behind for the next one: cache, clock, heat.
                for call, taken in calls if index % 2 == 0 else reversed(calls):
                    cpu, start = time.process_time(), time.perf_counter()
                    call()
                    taken.wall.append(time.perf_counter() - start)
                    taken.cpu.append(time.process_time() - cpu)
        finally:
            gc.enable()
        return [Clocked(taken.wall[warmup:], taken.cpu[warmup:]) for taken in clocked]

    def close(self, key: int) -> None:
        del self._loaded[key]
        give_back()


def _provider_options(provider: str) -> dict[str, str]:
    """What a provider is told where the environment asks for exact products: no TF32, no algorithm picked by time."""
    if provider != "cuda":
        return {}
    # From a wheel's CUDA libraries, which are on no search path; without them the system's are used.
    ort.preload_dlls()
    return {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"} if os.environ.get(TF32) == "0" else {}


def _smallest() -> bytes:
    """A model of one node."""
    from onnx import parser  # takes time, and is asked for only where there is another provider than the CPU

    text = '<ir_version: 8, opset_import: ["": 13]> g (float[1] x) => (float[1] y) { y = Neg(x) }'
    return bytes(parser.parse_model(text).SerializeToString())


def _options(request: Load, profile: Path) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = not request.optimize
    entries = {}
    if request.threads > 1:
        # Threads that spin after a run would take the cores from the next session's run.
        entries["session.force_spinning_stop"] = "1"
    if not request.optimize:
        # Many nodes, few runs: what these prepare costs more than it saves (creation is quadratic with memory reuse).
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_mem_reuse = options.enable_mem_pattern = options.enable_cpu_mem_arena = False
        entries["session.disable_prepacking"] = "1"
    if request.base is not None:
        entries["session.model_external_initializers_file_folder_path"] = str(request.base)
    if request.profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
        entries["session.record_ep_graph_assignment_info"] = "1"
    for name, value in (entries | dict(request.entries)).items():
        options.add_session_config_entry(name, value)
    return options


@contextmanager
def _written(options: ort.SessionOptions, request: Load, scratch: Path) -> Iterator[list[bytes]]:
    """A list that gets the optimized model of the session that is created meanwhile, if the request wants it.

    Its weights go to a file that is removed again: there is no way to write a model without.
    """
    optimized: list[bytes] = []
    if not request.written:
        yield optimized
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(SMALL))
        yield optimized
        optimized.append(path.read_bytes())


def _register(options: ort.SessionOptions, libraries: Iterable[Path]) -> None:
    """Adds kernels. Raises: ModelError GO036 for a file that is no library of them."""
    for path in libraries:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:
            found = _STATUS.match(str(error))
            hint = "a shared library for this platform and version of onnxruntime, with the function RegisterCustomOps"
            message = f"not a library of custom ops: {found[2] if found else error}"
            raise ModelError("GO036", message, str(path), hint) from error


def _attach(options: ort.SessionOptions, request: Load, blank: Path) -> list[ort.OrtValue]:
    """Give a session the initializers that the model only names; returns what must outlive the session.

    onnxruntime has two ways (both as measured with 1.31.1):
    - `add_external_initializers` replaces a TensorProto of the main graph that is declared external, at any location,
      with the same dtype and shape (it checks both), before anything reads it; it *copies* the data for as long as the
      session is being created.
    - `add_initializer` hands over the values when the session allocates its weights, without a copy and without a check
      of shape. Everything earlier (shape inference, constant folding) still sees the TensorProto, and its location must
      be an existing file inside the model's folder, of any length: here an empty one.
    Small tensors go the first way, large ones the second; both at once where the optimizer may read large ones, or
    where the model's folder is not ours to put the empty file in.
    """
    if not request.external:
        return []
    values = {name: initializer(source) for name, source in request.external.items()}
    copied = request.optimize or request.base is not None or not isinstance(request.model, bytes)
    early = [name for name, value in values.items() if copied or value.tensor_size_in_bytes() <= SMALL]
    options.add_external_initializers(early, [values[name] for name in early])
    for name, value in values.items():
        if value.tensor_size_in_bytes() > SMALL:
            options.add_initializer(name, value)
    if request.base is None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(blank))
    return list(values.values())


def _kernels(session: ort.InferenceSession) -> list[Kernel]:
    placed = [node for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
    by_name = {(node.name, node.op_type): node.domain for node in placed if node.name}
    by_op: dict[str, set[str]] = {}
    for node in placed:
        by_op.setdefault(node.op_type, set()).add(node.domain)
    path = Path(session.end_profiling())
    events = json.loads(path.read_text())
    path.unlink()
    return [_kernel(event, by_name, by_op) for event in events if event["cat"] == "Node" and "op_name" in event["args"]]


def _kernel(event: dict[str, Any], by_name: dict[tuple[str, str], str], by_op: dict[str, set[str]]) -> Kernel:
    node, op = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
    domains = {by_name[node, op]} if (node, op) in by_name else by_op.get(op, set())
    domain = next(iter(domains)) if len(domains) == 1 else None
    shapes = [output.get(kind) for output in event["args"].get("output_type_shape", ()) for kind in _FLOATS]
    floats = max((math.prod(shape) for shape in shapes if shape is not None), default=0)
    return Kernel(node, op, domain, event["args"]["provider"], event["dur"], floats)


def _ports(args: Sequence[Any]) -> tuple[Port, ...]:
    return tuple(Port(arg.name, arg.type, tuple(arg.shape)) for arg in args)


def _unavailable(provider: str) -> Unavailable:
    hint = "pip install graphopt[cuda], and a driver that fits" if provider == "cuda" else ""
    return Unavailable("GO053", f"onnxruntime has no '{provider}' provider here", hint=hint)


@contextmanager
def _errors(phase: str, request: Load) -> Iterator[None]:
    try:
        yield
    except GraphoptError:
        raise
    except MemoryError as error:
        raise RunError(phase, "MEMORY", str(error) or "out of memory", request.name) from error
    except Exception as error:
        found = _STATUS.match(str(error))
        status, message = found.groups() if found else ("", str(error))
        if "bad_alloc" in message or "Failed to allocate memory" in message:
            status = "MEMORY"
        raise RunError(phase, status, message.strip(), request.name) from error
