"""A project's settings: graphopt.toml, or a table in pyproject.toml, as defaults of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Cli
from .test_bad_rules import GOOD, HEAD
from .test_fuse import ops


@pytest.fixture
def project(gelu: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a rule and an empty folder; commands run in it."""
    monkeypatch.chdir(gelu.parent)
    Path("ours.py").write_text(HEAD + GOOD)
    Path("below").mkdir()
    return gelu.parent


def test_settings_are_defaults(cli: Cli, project: Path) -> None:
    Path("pyproject.toml").write_text('[tool.graphopt]\nrules = ["ours.py"]\ntarget = "onnx"\ndisable = ["GeluErf"]\n')
    report = cli("fuse", "model.onnx", "--json", "-").report
    assert report["config"] == str(project / "pyproject.toml")
    assert report["target"] == "onnx"
    assert report["fused"] == {}
    assert "Good" in {site["rule"] for site in report["rewrites"]}


def test_the_command_line_goes_first(cli: Cli, project: Path) -> None:
    Path("graphopt.toml").write_text('target = "onnx"\ndisable = ["GeluErf"]\nquiet = true\n')
    report = cli("fuse", "model.onnx", "--target", "ort-cpu", "--disable", "SwishFromParts", "--json", "-").report
    assert report["target"] == "ort-cpu"
    assert report["fused"] == {"Gelu": 1}
    assert cli("fuse", "model.onnx", "--only", "GeluErf", "--json", "-").report["fused"] == {"Gelu": 1}


def test_no_config_reads_none(cli: Cli, project: Path) -> None:
    Path("graphopt.toml").write_text("not TOML")
    assert cli("fuse", "model.onnx").code == 2
    done = cli("fuse", "model.onnx", "--no-config", "--json", "-")
    assert done.code == 0
    assert done.report["config"] is None


def test_the_nearest_file_counts(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text('[tool.graphopt]\ntarget = "ort-cuda"\n')
    Path("below/pyproject.toml").write_text('[project]\nname = "no-settings"\n')
    monkeypatch.chdir("below")

    def used() -> tuple[str, str]:
        report = cli("fuse", "../model.onnx", "--dry-run", "--verify", "off", "--json", "-").report
        return Path(report["config"]).relative_to(project).as_posix(), report["target"]

    assert used() == ("pyproject.toml", "ort-cuda")
    (project / "graphopt.toml").write_text('target = "onnx"\n')
    assert used() == ("graphopt.toml", "onnx")
    Path("graphopt.toml").write_text('target = "ort-cpu"\n')
    assert used() == ("below/graphopt.toml", "ort-cpu")


def test_paths_begin_at_the_file(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("graphopt.toml").write_text('rules = ["ours.py"]\n')
    monkeypatch.chdir("below")
    assert cli("rules", "Good").code == 0
    (project / "ours.py").unlink()
    done = cli("rules")
    assert done.code == 2
    assert f"--> {project / 'ours.py'}" in done.err


def test_a_table_of_one_command_goes_first(cli: Cli, project: Path) -> None:
    Path("graphopt.toml").write_text('timeout = 60\ndim = ["N=3"]\n[fuse]\nverify = "off"\n[verify]\ntimeout = 1e-6\n')
    assert cli("fuse", "model.onnx", "--json", "-").report["verdict"] == "skipped"
    assert cli("verify", "model.onnx", "model.fused.onnx").code == 5
    assert cli("verify", "model.onnx", "model.fused.onnx", "--timeout", "60").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('targt = "onnx"', "'targt' is not a flag that can be set|did you mean target"),
        ('output = "x.onnx"', "'output' is not a flag that can be set|did you mean"),
        ('[fuze]\ntarget = "onnx"', "'fuze' is not a command that can be set|did you mean fuse"),
        ("[fuse]\ntimeot = 3", "'timeot' is not a flag of fuse that can be set|did you mean timeout"),
        ('disable = "GeluErf"', "'disable' is 'GeluErf', not a list|"),
        ('keep-opset = "yes"', "'keep-opset' is 'yes', not true or false|"),
        ('verify = ["off"]', "'verify' is ['off'], not a single value|"),
        ("timeout = -1", "'timeout' cannot be -1|"),
        ('memory = "lots"', "'memory' cannot be 'lots'|"),
        ('verify = "of"', "'verify' cannot be 'of'|"),
        ("target", "it cannot be read|--no-config"),
        ("a = " + "[" * 9000, "it cannot be read: maximum recursion depth|--no-config"),
        ("a" + ".a" * 5000 + " = 1", "it cannot be read: maximum recursion depth|--no-config"),
        ("timeout = " + "9" * 5000, "it cannot be read: Exceeds the limit|--no-config"),
        ("timeout = 2000-01-01", "'timeout' cannot be datetime.date|"),
        ("[fuse.timeout]\na = 1", "'timeout' cannot be {'a': 1}|"),
        ("#" * (1 << 20) + "#", "it has more than 1,048,576 bytes|--no-config"),
    ],
)
def test_a_wrong_setting_is_one_error_with_the_file(cli: Cli, project: Path, text: str, said: str) -> None:
    Path("graphopt.toml").write_text(text)
    done = cli("fuse", "model.onnx")
    message, _, hint = said.partition("|")
    assert done.code == 2
    assert re.fullmatch(r"error\[GO027\]: .+\n  --> .+\n(  hint: .+\n)?", done.err), done.err
    assert message in done.err
    assert f"--> {project / 'graphopt.toml'}" in done.err
    assert hint in done.err


@pytest.mark.parametrize("text", ["tool = 3", "[[tool]]", "[tool]\ngraphopt = 3", "[[tool.graphopt]]\nquiet = true"])
def test_a_table_that_is_none(cli: Cli, project: Path, text: str) -> None:
    Path("pyproject.toml").write_text(text)
    done = cli("fuse", "model.onnx")
    assert done.code == 2
    assert re.match(r"error\[GO027\]: it cannot be read: '(tool|graphopt)' is no table\n", done.err), done.err


def test_a_name_that_no_rule_has_is_told(cli: Cli, project: Path) -> None:
    Path("graphopt.toml").write_text('disable = ["GeluErv"]\n')
    done = cli("fuse", "model.onnx")
    assert done.code == 2
    assert "did you mean GeluErf" in done.err


def test_only_and_disable_of_one_rule_contradict(cli: Cli, project: Path) -> None:
    done = cli("fuse", "model.onnx", "--only", "GeluErf", "--disable", "GeluErf")
    assert done.code == 2
    assert "'GeluErf' is asked for and disabled" in done.err


def test_help_needs_no_settings(cli: Cli, project: Path) -> None:
    Path("graphopt.toml").write_text("not TOML")
    assert cli("--help").code == 0
    assert cli("fuse", "--help").code == 0


def test_the_settings_of_the_page(cli: Cli, project: Path, root: Path) -> None:
    page = (root / "docs" / "plug-ins.md").read_text()
    for name in ("softsign.py", "graphopt.toml"):
        (block,) = re.findall(rf"^```\w+ {name}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        Path(name).write_text(block)
    done = cli("fuse", "model.onnx", "--verbose")
    assert done.code == 0
    assert re.search(r"^target +onnx *$", done.out, re.MULTILINE)
    assert done.err == f"settings of {project / 'graphopt.toml'}\n"
    assert "Gelu" in ops(project / "model.fused.onnx")
