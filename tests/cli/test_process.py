"""The program as a process: speed of help, signals, pipes, terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from .conftest import Cli, snapshot
from .processes import GRAPHOPT, WAITING


def environment(root: Path, **others: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), **others}


def test_help_takes_a_quarter_of_a_second(root: Path) -> None:
    def seconds() -> float:
        before = os.times()
        subprocess.run([*GRAPHOPT, "--help"], env=environment(root), check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) <= 0.25


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(root: Path, gelu: Path, number: signal.Signals, code: int) -> None:
    # The rewriting takes as long as a rule likes; it says when it has begun.
    rules = gelu.with_name("slow.py")
    rules.write_text(WAITING)
    interrupted(root, gelu.parent, number, code, "fuse", gelu, "--rules", rules)


def interrupted(root: Path, folder: Path, number: signal.Signals, code: int, *arguments: object) -> None:
    """Sends a signal to a command that has said `begun`: it ends with `code` and leaves nothing behind in `folder`."""
    scratch = folder / "scratch"
    scratch.mkdir()
    before = snapshot(folder)
    program = subprocess.Popen(
        [*GRAPHOPT, *map(str, arguments)],
        env=environment(root, TMPDIR=str(scratch), PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr is not None
    with program.stderr:
        assert program.stderr.readline() == "begun\n"
        program.send_signal(number)
        assert program.wait(10) == code
        assert "Traceback" not in program.stderr.read()
    assert snapshot(folder) == before
    assert not any(scratch.rglob("*"))


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    command = " ".join(
        ["exec 2>&1;", sys.executable, "-c", "'from graphopt.cli import main; main()'", "rules --json -"]
    )
    done = subprocess.run(
        ["bash", "-c", f"({command}) | head -n 1"], env=environment(root), capture_output=True, text=True, check=True
    )
    assert done.stdout == "{\n"


def test_a_bar_shows_on_a_terminal_after_a_second(root: Path, gelu: Path) -> None:
    rules = gelu.with_name("slow.py")
    rules.write_text("""
import time
from graphopt.rewrite import Expr, Ops, Rule, Value

class Slow(Rule):
    "Waits."
    stage = "recover"
    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)
    def where(self):
        time.sleep(1.6)
        return "too slow"
    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)
""")
    for arguments, shown in (([], False), (["--rules", str(rules)], True), (["--rules", str(rules), "--quiet"], False)):
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [*GRAPHOPT, "fuse", gelu, "--verify", "off", *arguments],
            env=environment(root, TERM="xterm"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
        )
        os.close(theirs)
        drawn = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            drawn += part
            if not part:
                break
        os.close(ours)
        assert (b"recover" in drawn) is shown, drawn
        assert b"recover" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "wishes", "colored"),
    [
        ([], ["FORCE_COLOR"], True),
        ([], [], False),
        (["--no-color"], ["FORCE_COLOR"], False),
        ([], ["FORCE_COLOR", "NO_COLOR"], False),
    ],
)
def test_color_is_for_terminals_that_want_it(
    cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], wishes: list[str], colored: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name in wishes:
        monkeypatch.setenv(name, "1")
    out = cli("fuse", gelu, "--dry-run", *arguments).out
    assert "equal" in out
    assert ("\x1b[32m" in out) is colored


def test_names_of_a_model_do_not_reach_the_terminal_as_commands(root: Path, gelu: Path) -> None:
    name = "x\x1b]0;title\x07\x9b31m\u202e"
    model = onnx.load(gelu)
    model.producer_name = name
    model.graph.input[0].name = name
    for node in model.graph.node:
        node.input[:] = [name if one == "x" else one for one in node.input]
    # One that is warned of.
    model.opset_import.add(domain=name, version=1)
    model.opset_import.add(domain=name, version=2)
    onnx.save(model, gelu)
    for command in (["inspect"], ["fuse", "--verify", "off", "--verbose"], ["bench", "--runs", "1"]):
        done = subprocess.run([*GRAPHOPT, *command, str(gelu)], env=environment(root), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr)
        assert "\\x1b]0;title" in done.stderr


def test_a_bug_is_a_short_message(cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt import pipeline

    def broken(source: str) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(pipeline, "inspect", broken)
    done = cli("inspect", gelu)
    assert done.code == 70
    assert "ZeroDivisionError: planted" in done.err
    assert "report" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in cli("inspect", gelu, "--traceback").err


def test_errors_have_a_traceback_for_those_who_ask(cli: Cli, tmp_path: Path) -> None:
    done = cli("inspect", tmp_path / "missing.onnx", "--traceback")
    assert done.code == 3
    assert "Traceback" in done.err
    assert "\nerror[GO020]: " in done.err


def test_an_interrupt_is_130(cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt import pipeline

    def interrupted(source: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "inspect", interrupted)
    assert cli("inspect", gelu).code == 130
