"""What is built is what is in the checkout, and it runs where only it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

# One worker builds once for all tests here.
pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, root], check=True, capture_output=True)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def sources(folder: Path, name: str) -> set[str]:
    """The files under `folder`, as paths that begin with `name`; links to other folders are not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {f"{name}/{path.relative_to(folder).as_posix()}" for path in files}


def test_the_wheel_ships_every_file_of_the_package(root: Path, built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        shipped = {name for name in wheel.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    parts = {"graphopt": "graphopt", "patterns": "graphopt/patterns", "kernels": "graphopt/kernels"}
    assert shipped == set().union(*(sources(root / folder, name) for folder, name in parts.items()))
    assert "graphopt/py.typed" in shipped
    assert "graphopt/patterns/__init__.py" in shipped
    assert any(name.startswith("graphopt/kernels/") for name in shipped)


def test_the_sdist_ships_the_two_folders_once(root: Path, built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        members = {member.name.partition("/")[2]: member for member in sdist}
    for folder in ("patterns", "kernels"):
        assert sources(root / folder, folder) <= members.keys()
        assert members[f"graphopt/{folder}"].linkname == f"../{folder}"
    assert {"LICENSE", "README.md", "constraints.txt"} <= members.keys()


def test_the_demo_runs_with_the_cpu_extra_alone(root: Path, built: tuple[Path, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    install = [scripts / "python", "-m", "pip", "install", "-q", "-c", root / "constraints.txt", f"{built[1]}[cpu]"]
    subprocess.run(install, check=True, capture_output=True)
    listed = subprocess.run([scripts / "python", "-m", "pip", "list"], check=True, capture_output=True, text=True)
    assert not re.search(r"^torch\b", listed.stdout, re.MULTILINE)

    subprocess.run([scripts / "python", "-c", "import graphopt.kernels, graphopt.patterns"], cwd=tmp_path, check=True)
    demo = subprocess.run([scripts / "graphopt", "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert demo.returncode == 0, demo.stderr
    # On a busy machine the difference may not show, or come out the wrong way round.
    assert re.search(r"\dx faster|\dx slower|no difference shown", demo.stdout), demo.stdout
