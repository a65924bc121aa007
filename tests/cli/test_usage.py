"""Wrong command lines: exit code 2, one error with a near name, nothing done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from .conftest import Cli, snapshot

ERROR = re.compile(r"error\[GO\d{3}\]: .+\n  --> .+\n(  hint: .+\n)?")
BARE = re.compile(r"error\[GO\d{3}\]: .+\n(  --> .+\n)?  hint: .+\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fuze", "MODEL"], "did you mean fuse"),
        (["fuse", "MODEL", "--dsable", "GeluErf"], "did you mean --disable"),
        (["fuse", "MODEL", "--hlep"], "did you mean --help"),
        (["--versoin"], "did you mean --version"),
        (["fuse"], "missing argument 'MODEL'"),
        (["fuse", "MODEL", "--only", "GeluErv"], "did you mean GeluErf"),
        (["fuse", "MODEL", "--disable", "GeluErv"], "did you mean GeluErf"),
        (["fuse", "MODEL", "--target", "ort-cpv"], "did you mean ort-cpu"),
        (["fuse", "MODEL", "--target", "nowhere.json"], "target table"),
        (["fuse", "MODEL", "--rules", "nowhere.py"], "cannot be imported"),
        (["fuse", "MODEL", "--rules", "no_such_module"], "cannot be imported"),
        (["fuse", "MODEL", "--dim", "M=3"], "known: N"),
        (["fuse", "MODEL", "--dim", "N"], "NAME=N"),
        (["fuse", "MODEL", "--dim", "N=0"], "NAME=N"),
        (["fuse", "MODEL", "--dim", "N=-1"], "NAME=N"),
        (["fuse", "MODEL", "--memory", "lots"], "512MB"),
        (["fuse", "MODEL", "--timeout", "0"], "timeout"),
        (["fuse", "MODEL", "--timeout", "inf"], "timeout"),
        (["fuse", "MODEL", "--provider", "gpu"], "known: cpu, cuda"),
        (["fuse", "MODEL", "--verify", "of"], "'off', 'sites', 'full'"),
        (["fuse", "MODEL", "--inputs", "nowhere.npz"], "no such file"),
        (["fuse", "MODEL", "--json", "nowhere/report.json"], "report cannot be written"),
        (["fuse", "MODEL", "--json", "MODEL"], "no report"),
        (["fuse", "MODEL", "--json", "model.fused.onnx"], "overwrite the model"),
        (["fuse", "MODEL", "-o", "out.onnx", "--json", "./out.onnx"], "overwrite the model"),
        (["fuse", "MODEL", "-o", "MODEL"], "--in-place"),
        (["rules", "GeluErv"], "did you mean GeluErf"),
        (["explain", "MODEL", "--rule", "GeluErv"], "did you mean GeluErf"),
        (["explain", "MODEL", "--node", "erv"], "did you mean erf"),
        (["explain", "MODEL", "--require", "Gelu"], "NAME=N"),
        (["explain", "MODEL", "--require", "Gelv=1"], "did you mean Gelu"),
        (["verify", "MODEL"], "missing argument 'CANDIDATE'"),
        (["verify", "MODEL", "MODEL", "--dim", "M=3"], "known: N"),
        (["demo", "--keep", "MODEL"], "not a folder"),
        (["bench"], "missing argument"),
        (["bench", "MODEL", "--dim", "M=3"], "known: N"),
        (["bench", "MODEL", "--shape", "z=1,16"], "known: x"),
        (["bench", "MODEL", "--shape", "x=1,2,3"], "not (1, 2, 3)"),
        (["bench", "MODEL", "--shape", "x=2,15"], "not (2, 15)"),
        (["bench", "MODEL", "--shape", "x"], "NAME=SIZES"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_error(
    cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(gelu.parent)
    before = snapshot(gelu.parent)

    done = cli(*[gelu.name if word == "MODEL" else word for word in arguments])

    assert done.code == 2
    assert done.out == ""
    assert ERROR.fullmatch(done.err) or BARE.fullmatch(done.err), done.err
    assert said in done.err
    assert snapshot(gelu.parent) == before


@pytest.mark.parametrize("command", ["fuse", "verify", "bench"])
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.ones((2, 16), np.float32)}, "no input 'z'"),
        ({}, "no array for the input 'x'"),
        ({"x": np.ones((2, 15), np.float32)}, "float32[2, 15]"),
        ({"x": np.ones(16, np.float32)}, "float32[16]"),
        ({"x": np.ones((2, 16), np.float64)}, "float64[2, 16]"),
    ],
    ids=["name", "missing", "size", "rank", "type"],
)
def test_inputs_that_do_not_fit_are_one_error(
    cli: Cli, gelu: Path, command: str, arrays: dict[str, np.ndarray], said: str
) -> None:
    data = gelu.parent / "inputs.npz"
    np.savez(data, **arrays)
    before = snapshot(gelu.parent)

    done = cli(command, *[gelu] * (2 if command == "verify" else 1), "--inputs", data)

    assert done.code == 2
    assert ERROR.fullmatch(done.err), done.err
    assert said in done.err
    assert str(data) in done.err
    assert snapshot(gelu.parent) == before


def test_inputs_that_are_no_archive_are_bad_data(cli: Cli, gelu: Path) -> None:
    data = gelu.parent / "inputs.npz"
    data.write_text("no archive")
    done = cli("fuse", gelu, "--inputs", data)
    assert done.code == 3
    assert ERROR.fullmatch(done.err), done.err


@pytest.mark.parametrize(
    ("command", "flags", "code"),
    [
        ("fuse", ["--json", "loop.json"], "GO014"),
        ("fuse", ["-o", "loop.json", "--json", "report.json"], "GO032"),
        ("quantize", ["--report", "loop.json"], "GO014"),
        ("quantize", ["-o", "loop.json", "--calib", "data.npz"], "GO032"),
        ("bench", ["--plot", "loop.svg", "--runs", "5", "--dim", "N=2"], "GO113"),
    ],
)
def test_nothing_is_written_through_a_link_that_leads_to_itself(
    cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch, command: str, flags: list[str], code: str
) -> None:
    monkeypatch.chdir(gelu.parent)
    for name in ("loop.json", "loop.svg"):
        Path(name).symlink_to(name)
    before = snapshot(gelu.parent)
    done = cli(command, gelu, *flags)
    assert f"error[{code}]" in done.err
    assert "Too many levels of symbolic links" in done.err
    assert snapshot(gelu.parent) == before


def test_nothing_asked_is_answered_with_help(cli: Cli) -> None:
    done = cli()
    assert done.code == 2
    assert "fuse" in done.out


@pytest.mark.parametrize("command", ["fuse", "verify", "inspect", "rules", "bench", "demo"])
def test_help_names_the_common_flags(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    for flag in ("--json", "--quiet", "--verbose", "--no-color", "--traceback"):
        assert flag in done.out
