"""Takes away each check that makes rewriting safe, one at a time, and shows which test notices.

    python tools/weaken.py
    python tools/weaken.py --only 3 --only 17

The table is `weaken.toml`: the claim in words, the file, the text that is the check, what stands there without it, and
the tests that must notice. It is tried on a copy of the checkout in a temporary folder. Exits with 1 when a check can
go unnoticed, or when the table is not true: the text is not there once, a test fails without any change or is gone.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")

_PARTS = ("graphopt", "patterns", "kernels", "tests", "docs", "pyproject.toml")
_SECONDS = 120.0
"""A test that runs longer than this has noticed: what it tests does not end."""
_FAILED = re.compile(r"^FAILED \S+::(\w+(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Removal:
    """One check, and how it is taken away."""

    number: int
    group: str
    claim: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def removals(table: Path = TABLE) -> list[Removal]:
    """All rows of the table, numbered from 1."""
    groups = tomllib.loads(table.read_text())
    rows = [(group, row) for group, found in groups.items() for row in found]
    return [
        Removal(number, group, **{**row, "tests": tuple(f"tests/{test}" for test in row["tests"])})
        for number, (group, row) in enumerate(rows, 1)
    ]


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout, and a Python that imports `graphopt` from there and all else from where we do."""

    folder: Path
    python: Path

    def test(self, tests: Iterable[str], *options: str, seconds: float = _SECONDS) -> tuple[int, str]:
        """Exit status and output of pytest; 1 and nothing where it does not end."""
        command = [str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        try:
            done = self._run([*command, *options, *tests], seconds)
        except subprocess.TimeoutExpired:
            return 1, ""
        return done.returncode, done.stdout

    def check_own(self) -> None:
        """Raises: ClickException when it imports another graphopt than its own."""
        found = self._run([str(self.python), "-c", "import graphopt; print(graphopt.__file__)"], _SECONDS)
        if not Path(found.stdout.strip()).is_relative_to(self.folder):
            raise click.ClickException(f"graphopt is imported from {found.stdout or found.stderr}")

    @contextmanager
    def without(self, removal: Removal) -> Iterator[None]:
        path = self.folder / removal.file
        whole = path.read_text()
        path.write_text(whole.replace(removal.old, removal.new))
        try:
            yield
        finally:
            path.write_text(whole)

    def _run(self, command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": "", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=seconds)


def copied(folder: Path) -> Copy:
    """The checkout in `folder`, with a virtual environment that knows no editable install: .pth files do not nest."""
    checkout, env = folder / "checkout", folder / "env"
    checkout.mkdir()
    for name in _PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, checkout / name)
    # By their hash, since two versions of a file may be of one size and one second.
    hashed = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(checkout / "graphopt", quiet=2, invalidation_mode=hashed)
    venv.create(env, with_pip=False)
    ours = sysconfig.get_path("purelib", "venv", {"base": str(env)})
    theirs = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(ours) / "checkout.pth").write_text("\n".join([str(checkout), *theirs]))
    return Copy(checkout, Path(sysconfig.get_path("scripts", "venv", {"base": str(env)})) / "python")


def verdict(copy: Copy, removal: Removal) -> tuple[bool, str]:
    """Whether the removal is noticed, and by which test or why it cannot be said."""
    count = (copy.folder / removal.file).read_text().count(removal.old)
    if count != 1:
        return False, f"the text is there {count} times"
    with copy.without(removal):
        status, output = copy.test(removal.tests, "-x")
    if status == 0:
        return False, "SURVIVED"
    if status != 1:
        return False, f"pytest ends with {status}: {output.strip().splitlines()[-1]}"
    failed = _FAILED.search(output)
    return True, failed[1] if failed else output.strip().rpartition("\n")[2] or "runs without end"


@click.command()
@click.option("--only", type=int, multiple=True, metavar="N", help="Only this row; may be given several times.")
def main(only: tuple[int, ...]) -> None:
    """Takes the checks away, one after the other."""
    chosen = [removal for removal in removals() if not only or removal.number in only]
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        copy.check_own()
        status, output = copy.test(
            sorted({test for removal in chosen for test in removal.tests}), seconds=10 * _SECONDS
        )
        if status:
            raise click.ClickException(f"the tests fail as it is:\n{output}")
        click.echo("| | what | without this check | noticed by |\n|---|---|---|---|")
        unnoticed = 0
        for removal in chosen:
            noticed, words = verdict(copy, removal)
            unnoticed += not noticed
            shown = f"`{words}`" if noticed else f"**{words}**"
            click.echo(f"| {removal.number} | {removal.group} | {removal.claim} | {shown} |")
    click.echo(f"\n{len(chosen) - unnoticed} of {len(chosen)} noticed")
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
