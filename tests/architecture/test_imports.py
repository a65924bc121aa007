"""What may import what, and that nothing heavy loads before it is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

import graphopt

HEAVY = {"numpy", "networkx", "onnx", "onnxruntime", "onnx_graphsurgeon", "rich", "torch"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after it ran `code`."""
    report = f"{code}\nimport sys; print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_graphopt_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("import graphopt")


def test_help_loads_click_and_nothing_heavy() -> None:
    loaded = loaded_by(
        """
import contextlib, sys
from graphopt.cli import main
sys.argv = ["graphopt", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""
    )
    assert "click" in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize("name", graphopt.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(graphopt, name).__name__ == name
    assert name in dir(graphopt)


@pytest.mark.parametrize("package", ["ir", "rewrite", "passes", "verify", "bench", "pipeline", "testing"])
def test_every_name_that_a_package_exports_is_there(package: str) -> None:
    module = import_module(f"graphopt.{package}")
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert all(getattr(module, name, None) is not None for name in module.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fuze'"):
        graphopt.fuze  # noqa: B018


def test_a_function_is_not_hidden_by_the_subpackage_of_its_name() -> None:
    code = "import graphopt, graphopt.verify; assert callable(graphopt.verify)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rules_are_refused_under_a_second_name(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import patterns"], cwd=root, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("ImportError: import graphopt.patterns, not patterns")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the package in `folder`. `-S` keeps an editable install from answering in its place."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    path = os.pathsep.join([str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=env, capture_output=True, text=True)


def test_the_import_contract_holds(root: Path) -> None:
    done = lint(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("graphopt/ir/planted.py", "import graphopt.cli", "Imports go one way"),
        ("graphopt/rewrite/planted.py", "from graphopt import patterns", "The machinery names no rule"),
        ("patterns/planted.py", "from graphopt import verify", "Rules know the graph"),
    ],
)
def test_the_import_contract_catches(root: Path, tmp_path: Path, file: str, line: str, contract: str) -> None:
    for name in ("graphopt", "patterns", "kernels"):
        shutil.copytree(root / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / file).write_text(f"{line}\n")

    done = lint(tmp_path)

    assert done.returncode == 1
    assert any(row.startswith(contract) and row.endswith("BROKEN") for row in done.stdout.splitlines()), done.stdout
