"""What the documentation shows is run, and what it names is there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphopt
from graphopt.ir.text import parse
from graphopt.rewrite import CompiledRule, Rule
from graphopt.runtime import Runner
from graphopt.targets import target_named
from graphopt.testing import check_rule, parse_cases, run_case

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
KINDS = {"python", "json", "sh", "text", "toml", "yaml"}
# Rules that are shown for what is wrong with them.
WRONG = {"AnyScale", "Softsing"}


def blocks(page: str) -> Iterator[tuple[int, str, str, str]]:
    """(line, language, name, body) of each fenced block of a page."""
    text = (ROOT / page).read_text()
    for found in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start()) + 2, found[1], found[2], found[3]


def rules_in(names: dict[str, Any]) -> list[type[Rule]]:
    """The rules that programs of a page have defined."""
    kinds = [kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, Rule)]
    return [kind for kind in kinds if kind.__module__ == names["__name__"] and kind.__name__ not in WRONG]


@pytest.mark.parametrize("page", DOCS)
def test_programs_run_one_after_another_and_their_rules_are_right(page: str) -> None:
    names: dict[str, Any] = {"__name__": page}
    for line, language, name, body in blocks(page):
        assert language in KINDS, f"{page}:{line - 1}: a block of '{language}'"
        # A block with a name is a file, for a test that follows the page.
        if language == "python" and not name:
            # The empty lines give errors the page's own line numbers.
            exec(compile("\n" * (line - 1) + body, str(ROOT / page), "exec"), names)
    for rule in rules_in(names):
        assert check_rule(rule).fired >= 10


@pytest.mark.parametrize(("page", "file"), [("README.md", "absolute.py"), ("docs/plug-ins.md", "softsign.py")])
def test_rules_of_files_are_right(page: str, file: str) -> None:
    names: dict[str, Any] = {"__name__": file}
    exec(next(body for _, _, name, body in blocks(page) if name == file), names)
    (rule,) = rules_in(names)
    assert check_rule(rule).fired >= 10


def test_cases_of_the_readme_hold_for_its_rules(tmp_path: Path, graphopt_runner: Runner) -> None:
    found = list(blocks("README.md"))
    names: dict[str, Any] = {"__name__": "readme"}
    for _, language, name, body in found:
        if language == "python" and name:
            exec(body, names)
    kinds = rules_in(names)
    (tmp_path / "cases.txt").write_text(next(body for _, _, name, body in found if name == "cases"))
    for case in parse_cases(tmp_path / "cases.txt"):
        assert run_case(case, [CompiledRule(kind()) for kind in kinds], graphopt_runner).problem == ""


def test_files_of_the_page_about_quantization_are_right(tmp_path: Path, graphopt_runner: Runner) -> None:
    page = {name: body for _, _, name, body in blocks("docs/quantization.md") if name}
    for name, body in page.items():
        (tmp_path / name).write_text(body)
    names: dict[str, Any] = {"__name__": "page"}
    exec(page["static_matmul_integer.py"], names)
    rules = [CompiledRule(kind()) for kind in rules_in(names)]
    for case in parse_cases(tmp_path / "cases"):
        assert run_case(case, rules, graphopt_runner).problem == ""
    text = "(x: float32[N, S, 256]) -> (y: float32[N, S, 64]) { y = MatMul(x, float32[256, 64] random(1)) }"
    graphopt.save(parse(text), tmp_path / "model.onnx")
    made = graphopt.quantize(
        tmp_path / "model.onnx",
        mode="static",
        calib=str(tmp_path / "calib.py"),
        metric=f"{tmp_path / 'metric.py'}:same_winner",
        max_drop=0.1,
        smooth="off",
        observer="min-max",
        rules=[str(tmp_path / "static_matmul_integer.py")],
        allow_slower=True,
    )
    assert made.error is None
    assert made.accuracy is not None
    assert made.accuracy.holdout > 0.9
    assert made.samples == {"calibration": 4, "search": 2, "holdout": 2}


def test_the_target_that_is_shown_is_one(tmp_path: Path) -> None:
    table = next(body for _, language, _, body in blocks("docs/targets.md") if language == "json")
    (tmp_path / "table.json").write_text(table)
    target = target_named(str(tmp_path / "table.json"))
    assert target.has("com.microsoft", "BiasGelu")
    assert not target.has("com.microsoft", "SkipLayerNormalization")
    assert not target.has("", "Gelu", opset=17)


@pytest.mark.parametrize("page", ["README.md", *DOCS])
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"
    for path in re.findall(r"`((?:graphopt|patterns|kernels|tests|tools|docs)/[\w./-]*)`", text):
        # Capitals stand for a name that the reader chooses.
        fixed = re.split(r"[A-Z]{2,}", path)[0]
        assert (ROOT / fixed).exists(), f"{page} names {path}"


@pytest.mark.parametrize(("section", "package"), [("The graph", "ir"), ("The rewriter", "rewrite")])
def test_modules_are_listed_in_the_order_of_their_imports(section: str, package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)/?`", row)]
    files = {path.stem: path for path in (ROOT / "graphopt" / package).glob("*.py") if path.stem != "__init__"}
    folders = {path.parent.name for path in (ROOT / "graphopt" / package).glob("*/__init__.py")}
    assert sorted(listed) == sorted(files.keys() | folders)
    for name in files:
        code = files[name].read_text()
        imported = set(re.findall(rf"^from graphopt\.{package}\.(\w+)[\w.]* import", code, re.MULTILINE))
        for names in re.findall(rf"^from graphopt\.{package} import (.+)", code, re.MULTILINE):
            imported |= files.keys() & set(names.split(", "))
        assert imported - folders <= set(listed[: listed.index(name)]), f"{name} imports what stands below it"


def test_the_house_is_listed_in_the_order_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [set(re.findall(r"\w+", layer)) for layer in reversed(contracts[0]["layers"])]
    listed = re.findall(r"^\| `graphopt/(\w+)", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    packages = {path.name for path in (ROOT / "graphopt").iterdir() if path.is_dir() and path.name[0] not in "._"}
    heights = [next(height for height, layer in enumerate(layers) if name in layer) for name in listed]
    assert heights == sorted(heights)
    modules = {path.stem for path in (ROOT / "graphopt").glob("*.py") if path.stem[0] != "_"}
    assert set(listed) == (packages - {"patterns", "kernels"}) | modules


def test_each_promise_is_held_by_tests_that_are_there() -> None:
    promises: dict[str, str] = dict(re.findall(r"^\| (.+) \| (`tests/.+`) \|$", _safety(), re.MULTILINE))
    assert len(promises) > 15
    for promise, held in promises.items():
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held):
            assert f"\ndef {name}(" in (ROOT / path).read_text(), f"'{promise}' is held by {name}, which is not there"
        assert held.count("::") == held.count("`") / 2


def test_the_readme_promises_what_the_page_holds() -> None:
    section = (ROOT / "README.md").read_text().split("## What is promised")[1]
    promises = re.findall(r"^- (\*\*.+?)(?=\n- |\n\n)", section, re.MULTILINE | re.DOTALL)
    assert len(promises) >= 5
    for promise in promises:
        assert f"| {' '.join(promise.split())} | `tests/" in _safety()


def _safety() -> str:
    return (ROOT / "docs" / "safety.md").read_text()
