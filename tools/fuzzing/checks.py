"""What must hold of any file: an error for people or a result, the same numbers, nothing read or written elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import signal
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Self

from google.protobuf.message import DecodeError
from onnx import ModelProto

from fuzzing.case import Case, Feeds, Finding, Outcome
from fuzzing.numbers import difference, fed, is_garbage, nudged
from fuzzing.places import graphs
from graphopt.cli.app import run
from graphopt.errors import GraphoptError, RuntimeCrash
from graphopt.ir import load, model_to_proto, save
from graphopt.runtime import RunError, Runner, Session
from graphopt.verify import runs

SECONDS = 20
"""CPU time that one command may take."""
MOST_GROWN = 2 << 20
"""KiB by which the process may grow."""
CANARY = b"what stands outside of the model's folder stays there"
_RENEWED = 200
"""Cases after which the child is another one: what it keeps of sessions that were not closed adds up."""
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_CLEAR = (1, 2, 3, 4, 5)
_WITHOUT_A_RULE = 6
_PLACE = re.compile(r'File "[^"]*/((?:graphopt|patterns|kernels)/[^"]+)", line \d+, in (\w+)')


class TooLong(BaseException):
    """A command took more CPU time than it may."""


@contextlib.contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raises TooLong where the block takes more than `seconds` of CPU time."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Kept(Runner):
    """A child process that outlives the checks that use it: to start one takes longer than most checks."""

    def __init__(self) -> None:
        super().__init__(timeout=15, memory=3 << 30)

    def __enter__(self) -> Self:
        return self if self._folder is not None else super().__enter__()

    def close(self) -> None:
        pass

    def end(self) -> None:
        super().close()


class Bench:
    """Tries cases; has a child process in which all models run."""

    def __init__(self) -> None:
        self.tried = 0
        self.runner = _Kept()
        runs.Runner = lambda **limits: self.runner  # type: ignore[misc, assignment]

    def try_case(self, case: Case) -> Outcome:
        self.tried += 1
        if self.tried % _RENEWED == 0:
            self.runner.end()
        self.runner.__enter__()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            trial = _Trial(self.runner, case, Path(folder))
            trial.run()
            return Outcome(tuple(trial.findings), tuple(trial.facts))


class _Trial:
    """One case in a folder of its own: `in` has the model, results go to `out`, and `outside.bin` is nobody's."""

    def __init__(self, runner: Runner, case: Case, folder: Path) -> None:
        self.runner = runner
        self.case = case
        self.seed = zlib.crc32(case.model)
        self.source, self.out = folder / "in", folder / "out"
        self.model = self.source / "model.onnx"
        self.findings: list[Finding] = []
        self.facts: list[str] = []
        self.source.mkdir()
        self.out.mkdir()
        (folder / "outside.bin").write_bytes(CANARY * 100)
        self.files = {self.model: case.model}
        for name, data in case.files.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            self.files[self.source / name] = data
        for path, data in self.files.items():
            path.write_bytes(data)

    def run(self) -> None:
        raw = self.raw()
        self.runs = raw is not None
        code, _ = self.command("inspect", str(self.model))
        loaded = code == 0
        self.facts.append("loaded" if loaded else "refused")
        if raw is not None:
            self.facts.append("runs")
        if raw is not None and not loaded:
            self.facts.append(f"refused though it runs: {self.last_error}")
            if not self.case.foreign:
                self.find(f"a valid model is refused: {self.last_error}")
        if loaded:
            self.round_trip(raw)
        if loaded or self.seed % 8 == 0:
            self.fuse(raw, loaded)
        for also in self.case.also if loaded else ():
            getattr(self, also)(raw)
        self.untouched()

    def find(self, sign: str, detail: str = "") -> None:
        self.findings.append(Finding(sign, detail[-4000:]))

    # ---- what the model computes -------------------------------------------------------------------------------------

    def raw(self) -> tuple[Feeds, Feeds] | None:
        """Feeds and what onnxruntime gives on them, with its optimizer off; None where it does not run the model, or
        draws random numbers."""
        if _is_random(self.case.model):
            self.facts.append("random")
            return None
        try:
            with self.runner.load(self.model, optimize=False) as session:
                return fed(session, self.case.feeds, self.seed)
        except RuntimeCrash:
            self.facts.append("onnxruntime dies of the model")
            return None
        except RunError:
            return None

    def differs(self, raw: tuple[Feeds, Feeds], path: Path) -> str:
        """In what a written model differs from the original."""
        feeds, expected = raw
        try:
            with self.runner.load(path, optimize=False) as session:
                found = session.run(_known(session, feeds))
        except (RunError, RuntimeCrash) as error:
            return f"it does not run any more: {error.message}"
        what = difference(expected, found) and difference(expected, found, self.moved(feeds))
        if "float16" in what:
            # Between nodes of half precision without a kernel onnxruntime keeps float32, so that a value that is made
            # an output changes those behind it. What the verifier says of regions counts there.
            self.facts.append("half precision is rounded elsewhere")
            return ""
        return what

    def moved(self, feeds: Feeds) -> list[Mapping[str, Any]]:
        """Results that are as good as the original's: of inputs moved by a little, and of onnxruntime's own optimizer,
        under which half precision is rounded elsewhere. The feeds again: what draws random numbers gives others."""
        found: list[Mapping[str, Any]] = []
        fed = [feeds, *(nudged(feeds, seed) for seed in range(6))]
        for optimize, inputs in ((False, fed), (True, fed[:3])):
            with (
                contextlib.suppress(RunError, RuntimeCrash),
                self.runner.load(self.model, optimize=optimize) as session,
            ):
                for one in inputs:
                    found.append(session.run(one))
        return found

    # ---- commands ----------------------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> tuple[int, str]:
        """(exit code, stderr) of a command line, which must end with a clear error or a result."""
        stdout, stderr = io.StringIO(), io.StringIO()
        start = time.process_time()
        try:
            with limited(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = run([*arguments, "--traceback"])
        except TooLong:
            self.find(f"{arguments[0]} hangs at {place(traceback.format_exc())}", traceback.format_exc())
            return 70, ""
        except (Exception, SystemExit):
            self.find(f"{arguments[0]}: {last_line(traceback.format_exc())}", traceback.format_exc())
            return 70, ""
        said = stderr.getvalue()
        self.last_error = next(iter(re.findall(r"error\[(GO\d+)\]", said)), "")
        if code == _WITHOUT_A_RULE and not self.runs:
            # A rule may rely on what a valid model says.
            self.facts.append("a rule fails on a model that does not run")
        elif code not in (0, *_CLEAR):
            self.find(f"{arguments[0]} exits {code}: {last_line(said)}", said)
        elif code and not self.last_error:
            self.find(f"{arguments[0]} exits {code} and says nothing", said)
        elif "Warning: " in said:
            self.find(f"{arguments[0]} warns: {_noise(said)}", said)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _FIRST_SIZE + MOST_GROWN:
            self.find(f"{arguments[0]} needs more than 2 GB", said)
        if time.process_time() - start > SECONDS / 2:
            self.facts.append(f"{arguments[0]} takes more than {SECONDS / 2:g} s")
        return code, said

    def round_trip(self, raw: tuple[Feeds, Feeds] | None) -> None:
        """Loading and saving again and again changes nothing."""
        paths = [self.out / "once.onnx", self.out / "twice.onnx"]
        try:
            with limited():
                protos = []
                source = self.model
                for path in paths:
                    save(load(source), path)
                    protos.append(model_to_proto(load(path)).SerializeToString(deterministic=True))
                    source = path
        except GraphoptError as error:
            if error.code == "GO070" or error.exit_code not in _CLEAR:
                self.find(f"load and save: {last_line(traceback.format_exc())}", traceback.format_exc())
            self.facts.append(f"not saved: {error.code}")
            return
        except (Exception, TooLong):
            self.find(f"load and save: {last_line(traceback.format_exc())}", traceback.format_exc())
            return
        if protos[0] != protos[1]:
            self.find("saved again, a model changes")
        if raw is not None and (what := self.differs(raw, paths[1])):
            self.find("saved, a model computes something else" + _refusal(what), what)

    def fuse(self, raw: tuple[Feeds, Feeds] | None, loaded: bool) -> None:
        """Fused without the verifier a model computes the same; with it, all the more."""
        fused, report = self.out / "fused.onnx", self.out / "fused.json"
        common = ["fuse", str(self.model), *self.case.flags, "--json", str(report)]
        code, said = self.command(*common, "-o", str(fused), "--verify", "off")
        if code == 0 and not loaded:
            self.find("fuse takes what inspect refuses", said)
        if code in (1, 4, 5):
            self.find(f"fuse without verification exits {code}: {last_line(said)}", said)
        rules = _rules(report)
        self.facts += [f"rule {rule}" for rule in rules]
        if rules:
            self.facts.append("rewritten")
        wrong = ""
        if code in (0, _WITHOUT_A_RULE) and raw is not None:
            wrong = self.differs(raw, fused)
            if wrong:
                self.find(f"fused, a model computes something else{_refusal(wrong)}: {', '.join(rules)}", wrong)
        if loaded and (self.case.verified or wrong):
            self.verified(raw, common, report, bool(wrong))

    def verified(self, raw: tuple[Feeds, Feeds] | None, common: list[str], report: Path, wrong: bool) -> None:
        checked = self.out / "checked.onnx"
        report.unlink(missing_ok=True)
        code, said = self.command(*common, "-o", str(checked), "--timeout", "15", "--memory", "3GB")
        self.facts.append(f"verified: exit {code}")
        if wrong:
            self.facts.append("wrong, and verified")
        if code == 1 and raw is not None:
            self.find("unequal, and nobody is to blame", said)
        if code == 0:
            if what := self.differs(raw, checked) if raw is not None else "":
                self.find(
                    f"verified, a model computes something else{_refusal(what)}: {', '.join(_rules(report))}", what
                )
            for rule in _rules(report, "rolled_back"):
                self.find(f"the verifier takes {rule} back" + ("" if wrong else ", needlessly"), _blame(report))

    def quantize(self, raw: tuple[Feeds, Feeds] | None) -> None:
        small = self.out / "small.onnx"
        mode = ("dynamic", "weight-only", "float16")[self.seed % 3]
        code, _ = self.command(
            "quantize", str(self.model), "-o", str(small), "--mode", mode, "--quiet", "--allow-slower"
        )
        self.facts.append(f"quantized: exit {code}")
        if code == 0 and raw is not None:
            feeds, expected = raw
            try:
                with self.runner.load(small, optimize=False) as session:
                    if mode != "float16" and (what := is_garbage(expected, session.run(_known(session, feeds)))):
                        self.find(f"quantized ({mode}), a model gives garbage", what)
            except (RunError, RuntimeCrash) as error:
                self.find(f"quantized ({mode}), a model does not run", str(error))

    def explain(self, raw: tuple[Feeds, Feeds] | None) -> None:
        self.command("explain", str(self.model), "--json", str(self.out / "explained.json"))

    def verify(self, raw: tuple[Feeds, Feeds] | None) -> None:
        """A model is equal to what it becomes when it is saved."""
        code, said = self.command("verify", str(self.model), str(self.out / "once.onnx"), "--timeout", "15", "--quiet")
        if code == 1:
            self.find("verify: a model is not what it was saved as", said)

    def untouched(self) -> None:
        """The input is what it was, nothing else lies beside it, and nothing from outside is in what was written."""
        for path, data in self.files.items():
            if not path.exists() or path.read_bytes() != data:
                self.find("the input was changed")
        extra = sorted(path.name for path in self.source.rglob("*") if path.is_file() and path not in self.files)
        if extra:
            self.find("litter beside the input", ", ".join(extra))
        for path in self.out.iterdir():
            if path.name.startswith(".") or path.suffix == ".tmp":
                self.find("litter beside the output", path.name)
            if path.is_file() and CANARY in path.read_bytes():
                self.find("a file outside of the model's folder was read", path.name)

    last_error = ""
    runs = False


_FIRST_SIZE = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _is_random(model: bytes) -> bool:
    """Whether a model draws random numbers: two runs of it differ."""
    try:
        proto = ModelProto.FromString(model)
    except DecodeError:
        return False
    nodes = [node for graph in graphs(proto) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    return any(node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.input) > 2) for node in nodes)


def place(trace: str) -> str:
    """Where in graphopt a traceback ends."""
    found = _PLACE.findall(trace)
    return f"{found[-1][0]}:{found[-1][1]}" if found else "?"


def last_line(trace: str) -> str:
    """The exception of a traceback and its place, or the error, without what differs between two inputs."""
    found = re.findall(r"^(?:[\w.]+(?:Error|Exception|Crash|Warning)\b|error\[GO\d+\]).*", trace, re.MULTILINE)
    kind = (found[-1] if found else trace.strip().rpartition("\n")[2])[:160]
    return re.sub(r"'[^']*'|\"[^\"]*\"|(?<!GO)(?<!GO0)\b\d+| \(at .*", "_", kind) + " at " + place(trace)


def _noise(said: str) -> str:
    line = next(line for line in said.splitlines() if "Warning: " in line)
    return re.sub(r"\d+", "_", line.rpartition("main/")[2])[:160]


def _refusal(what: str) -> str:
    return " (it does not run)" if what.startswith("it does not run") else ""


def _known(session: Session, feeds: Feeds) -> dict[str, Any]:
    names = {port.name for port in session.inputs}
    return {name: feed for name, feed in feeds.items() if name in names}


def _rules(report: Path, key: str = "rewrites") -> list[str]:
    """The rules that a report names."""
    try:
        return sorted({rewrite["rule"] for rewrite in json.loads(report.read_text())[key]})
    except (OSError, ValueError, KeyError):
        return []


def _blame(report: Path) -> str:
    return json.dumps(json.loads(report.read_text())["blamed"], indent=1)
