"""docs/plug-ins.md, followed: its package is installed, found, used and tested away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser

pytestmark = pytest.mark.xdist_group("plug-in")

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y)
<float one = {1.0}> { size = Abs(x) sum = Add(size, one) y = Div(x, sum) }"""


def blocks(root: Path) -> dict[str, str]:
    """The named blocks of the page."""
    text = (root / "docs" / "plug-ins.md").read_text()
    return dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


class Shell:
    """Commands in a folder, with graphopt's environment and a folder of installed packages."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(packages), "COLUMNS": "120"}

    def __call__(self, *words: object, code: int = 0) -> str:
        """What a command prints on both streams; it must end with `code`."""
        command = [str(word) for word in words]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def packages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the one that the page shows."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("packages")
    for name in ("pyproject.toml", "softsign.py"):
        (source / name).write_text(blocks(root)[name])
    offline = ["--no-index", "--no-build-isolation", "--no-deps"]
    Shell(source, target)(sys.executable, "-m", "pip", "install", "-q", *offline, "--target", target, ".")
    return target


@pytest.fixture
def shell(root: Path, tmp_path: Path, packages: Path) -> Shell:
    """A shell where the package is installed, in a folder with its tests and a model."""
    (tmp_path / "tests").mkdir()
    for name in ("tests/softsign.graphopt.txt", "tests/test_softsign.py"):
        (tmp_path / name).write_text(blocks(root)[name])
    onnx.save(parser.parse_model(MODEL), tmp_path / "model.onnx")
    return Shell(tmp_path, packages)


def test_an_installed_package_is_found_used_and_tested(shell: Shell, root: Path) -> None:
    for command in blocks(root)["package"].splitlines()[1:]:
        shell(*command.split())
    assert [node.op_type for node in onnx.load(shell.folder / "model.fused.onnx").graph.node] == ["Softsign"]

    tested = shell(*blocks(root)["tests"].split(), "-v")
    assert "tests/softsign.graphopt.txt::one_first PASSED" in tested
    assert "5 passed" in tested


def test_a_file_is_used_as_the_page_says(shell: Shell, root: Path) -> None:
    (shell.folder / "softsign.py").write_text(blocks(root)["softsign.py"])
    shell.environment["PYTHONPATH"] = ""
    for command in blocks(root)["file"].splitlines():
        shell(*command.split())
    assert [node.op_type for node in onnx.load(shell.folder / "model.fused.onnx").graph.node] == ["Softsign"]


def test_a_failing_case_says_why_and_an_old_one_is_updated(shell: Shell) -> None:
    file = shell.folder / "tests" / "softsign.graphopt.txt"
    right = file.read_text()
    old = right.replace("y = Softsign(x)", "y = Relu(x)")
    file.write_text(old.replace("[unchanged] wanted 1", "[out]\ny = Softsign(x)"))
    failed = shell("pytest", file, "-p", "no:cacheprovider", code=1)
    assert f"{file}:4\n" in failed
    assert "-  y = Relu(x)" in failed
    assert "Softsign did not fire" in failed
    assert "wanted 1" in failed

    # What must not fire, and does, stays as it is.
    file.write_text(old.replace("Add(2.0", "Add(1.0"))
    updated = shell("pytest", file, "--update-cases", "-p", "no:cacheprovider", code=1)
    assert "Softsign fired" in updated
    assert "1 failed, 1 passed, 1 skipped" in updated
    assert file.read_text() == right.replace("Add(2.0", "Add(1.0")


def test_the_rules_of_a_project_need_no_installation(shell: Shell, root: Path) -> None:
    (shell.folder / "graphopt.toml").write_text(blocks(root)["graphopt.toml"])
    (shell.folder / "softsign.py").write_text(blocks(root)["softsign.py"])
    shell.environment["PYTHONPATH"] = ""
    assert "3 passed" in shell("pytest", "tests/softsign.graphopt.txt", "-p", "no:cacheprovider")


def test_a_file_of_no_form_is_one_error(shell: Shell) -> None:
    file = shell.folder / "tests" / "softsign.graphopt.txt"
    file.write_text("rule: Softsign\n\n[case a]\n(x: float32[N]) -> (y) { y = Abs(x) }\n")
    failed = shell("pytest", file, "-p", "no:cacheprovider", code=2)
    assert "neither [out] nor [unchanged] follows" in failed
    assert f"{file}:3" in failed
    assert "Traceback" not in failed


def test_a_broken_package_stops_no_command(shell: Shell, packages: Path) -> None:
    broken = shutil.copytree(packages, shell.folder / "broken")
    module = broken / "softsign.py"
    module.write_text(f"import no_such_module\n{module.read_text()}")
    shell.environment["PYTHONPATH"] = str(broken)
    said = shell("graphopt", "fuse", "model.onnx", code=6)
    assert f"--> {module}:1" in said
    assert "the rule softsign was set aside" in said
    tested = shell("pytest", "tests/softsign.graphopt.txt", "-p", "no:cacheprovider", code=1)
    assert f"set aside: softsign ({module}:1)" in tested

    module.unlink()
    gone = shell("graphopt", "rules", code=6)
    assert "--> entry point softsign of softsign-rules" in gone
    assert "GeluErf" in gone


def test_pytest_elsewhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    (tmp_path / "notes.txt").write_text("no cases\n")
    code = """
import sys, pytest
assert pytest.main(["-q", "-p", "no:cacheprovider"]) == 0
assert "graphopt.testing.plugin" in sys.modules
assert not {"onnx", "numpy", "networkx", "graphopt.rewrite", "graphopt.runtime"} & sys.modules.keys()
assert pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:graphopt"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 passed") == 2
