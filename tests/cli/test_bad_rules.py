"""Rules that are wrong: each is one error with rule, file, line and what to change; the others run, exit code 6."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest

from graphopt.rewrite.blame import Mistake
from graphopt.rewrite.vocabulary import check_operation

from .conftest import Cli, Outcome, snapshot
from .test_fuse import ops

HEAD = """from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, Value, kernel
import numpy as np

"""

BAD = {
    "returns_nothing": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):  # HERE
        op.Erf(x)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "the pattern returns None, not an operation",
        "return op.Name(...)",
    ),
    "returns_a_number": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):  # HERE
        return 1.0
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "the pattern returns 1.0, not an operation",
        "return op.Name(...)",
    ),
    "unknown_op": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        inner = op.Div(x, 2.0)
        inner = op.Erff(inner)  # HERE
        return op.Add(inner, 1.0)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "no operator is called 'Erff'",
        "did you mean Erf",
    ),
    "unknown_attribute": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Gelu(
            op.Softmax(x, axes=1)  # HERE
        )
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "Softmax has no attribute or input 'axes'",
        "did you mean axis",
    ),
    "unknown_contrib_op": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.ms.QuikGelu(x)  # HERE
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "no operator is called 'com.microsoft.QuikGelu'",
        "did you mean QuickGelu",
    ),
    "too_many_operands": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x, y):
        return op.Erf(x, y)  # HERE
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "2 operands for Erf, which takes 1 at most",
        "leave out",
    ),
    "writes_an_unknown_op": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Tahn(x)  # HERE
""",
        "no operator is called 'Tahn'",
        "did you mean Tan",
    ),
    "writes_an_unknown_attribute": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Gelu(x, aproximate="tanh")  # HERE
""",
        "Gelu has no attribute or input 'aproximate'",
        "did you mean approximate",
    ),
    "writes_an_attribute_of_another_opset": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Split(x, num_outputs=1, axis=0)  # HERE
""",
        "Split of opset 17 has no attribute or input 'num_outputs'",
        "ask in where for root.node.graph.opsets",
    ),
    "where_asks_for_what_is_not_bound": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, weight):
        return op.Erf(weight)
    def where(self, wieght):  # HERE
        return True
    def rewrite(self, op, weight):
        return op.Tanh(weight)
""",
        "'where' of Bad asks for wieght, which its pattern does not bind",
        "did you mean weight",
    ),
    "rewrite_asks_for_what_is_not_bound": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x, y):  # HERE
        return op.Tanh(x)
""",
        "'rewrite' of Bad asks for y, which its pattern does not bind",
        "known: ctx, op, root, x",
    ),
    "takes_what_its_pattern_does_not_have": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x, y):  # HERE
        return op.Erf(x)
    def rewrite(self, op, x, y):
        return op.Tanh(y)
""",
        "the pattern of Bad takes y, and returns nothing that has it",
        "use every parameter",
    ),
    "where_raises": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def where(self, x):
        rank = 1 if x.shape is None else len(x.shape)
        return 1 / (rank - rank)  # HERE
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "ZeroDivisionError: division by zero",
        "where returns the reason why not",
    ),
    "where_returns_nothing": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def where(self, x):  # HERE
        x.shape is not None
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "where returns None",
        "return True, or the reason",
    ),
    "rewrite_raises": (
        """
def helper(x):
    raise KeyError("planted")  # HERE

class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return helper(x)
""",
        "KeyError: 'planted'",
        "rewrite returns None to decline",
    ),
    "another_dtype": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):  # HERE
        return op.Cast(x, to=11)
""",
        "rewrite returns float64, the value it replaces is float32",
        "cast it to float32",
    ),
    "another_shape": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):  # HERE
        return op.Unsqueeze(x, axes=[0])
""",
        "rewrite returns a value of shape (1, N, 32), the one it replaces has (N, 32)",
        "say in where",
    ),
    "another_count": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):  # HERE
        return op.Tanh(x), op.Tanh(x)
""",
        "rewrite returns 2 values for 1 root",
        "one value for each root",
    ),
    "returns_no_value": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):  # HERE
        return "y"
""",
        "rewrite returns 'y', not a value",
        "return what op.Name(...) returns",
    ),
    "undoes_another": (
        """
class Bad(Rule):  # HERE
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Atan(x)

class Undo(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Atan(x)
    def rewrite(self, op, x):
        return op.Erf(x)
""",
        "it undoes itself, with Undo",
        "let where refuse",
    ),
    "has_a_built_in_name": (
        """
class GeluErf(Rule):  # HERE
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "another rule has its name",
        "another name",
    ),
    "imports_what_is_missing": (
        """
import no_such_module  # HERE
""",
        "ModuleNotFoundError: No module named 'no_such_module'",
        "install what is missing",
    ),
    "is_no_python": (
        """
class Bad(Rule  # HERE
""",
        "SyntaxError: '(' was never closed",
        "repair the file",
    ),
    "exits": (
        """
raise SystemExit(0)  # HERE
""",
        "SystemExit: 0",
        "repair the file",
    ),
    "is_for_no_stage": (
        """
class Bad(Rule):  # HERE
    stage = "recovr"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "Bad is for no stage: 'recovr'",
        "did you mean recover",
    ),
    "has_no_rewrite": (
        """
class Bad(Rule):  # HERE
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
""",
        "Bad has no method 'rewrite'",
        "define it",
    ),
    "needs_no_kernel": (
        """
class Bad(Rule):  # HERE
    stage = "lower"
    needs = "BiasGelu"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "what Bad needs is 'BiasGelu', not a kernel",
        "kernel(",
    ),
    "cannot_be_made": (
        """
class Bad(Rule):
    stage = "recover"
    def __init__(self):
        self.table = {}["missing"]  # HERE
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "it cannot be made: KeyError: 'missing'",
        "without arguments",
    ),
    "where_exits": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def where(self, x):
        raise SystemExit(0)  # HERE
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "where ends the program",
        "return None, or a reason",
    ),
    "depends_on_the_order_of_a_set": (
        """
class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        first, *others = (getattr(op, name)(x)
            for name in {"Erf", "Tanh", "Sigmoid"})  # HERE
        return first | others[0] | others[1]
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "it iterates over a set, in another order in each run",
        "sorted(",
    ),
    "depends_on_the_order_of_a_named_set": (
        """
NAMES = {"Erf", "Tanh"}

class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):
        return op.Erf(x)
    def rewrite(self, op, x):
        for name in NAMES - {"Sigmoid"}:  # HERE
            x = getattr(op, name)(x)
        return x
""",
        "it iterates over a set, in another order in each run",
        "sorted(",
    ),
    "differs_each_time": (
        """
COUNT = iter(range(100))

class Bad(Rule):
    stage = "recover"
    def pattern(self, op, x):  # HERE
        return op.Erf(x) + next(COUNT)
    def rewrite(self, op, x):
        return op.Tanh(x)
""",
        "and when read again",
        "chance, time, a counter",
    ),
}

GOOD = """
class Good(Rule):
    stage = "recover"
    def pattern(self, op, x, k: Number):
        return op.Div(x, k)
    def rewrite(self, op, x, k):
        return op.Mul(x, op.const(1 / k, like=x))
"""


def written(path: Path, source: str) -> str:
    """Writes a rule file; returns the place of the line that is marked."""
    text = HEAD + source
    path.write_text(text)
    return f"{path}:{next(n for n, line in enumerate(text.splitlines(), 1) if '# HERE' in line)}"


def check_one_error(done: Outcome, rule: str, place: str, said: str, hint: str) -> None:
    assert done.code == 6, done.err
    (error,) = re.findall(r"error\[GO\d{3}\]: .*(?:\n  .*)*", done.err)
    assert done.err == f"{error}\n"
    lines = error.splitlines()
    assert f"the rule {rule} was set aside: " in lines[0]
    assert said in lines[0]
    assert lines[1] == f"  --> {place}"
    (told,) = lines[2:]
    assert told.startswith("  hint: ")
    assert hint in told


@pytest.mark.parametrize("name", BAD)
def test_a_bad_rule_is_one_error_and_the_others_run(cli: Cli, gelu: Path, name: str) -> None:
    source, said, hint = BAD[name]
    place = written(gelu.with_name("bad.py"), source)
    written(gelu.with_name("good.py"), GOOD + "# HERE")

    done = cli("fuse", gelu, "--rules", gelu.with_name("bad.py"), "--rules", gelu.with_name("good.py"))

    rule = re.search(r"class (\w+)\(Rule\)", source)
    check_one_error(done, rule[1] if rule else str(gelu.with_name("bad.py")), place, said, hint)
    assert "Gelu" in ops(gelu.with_name("model.fused.onnx"))


def test_a_good_rule_beside_a_bad_one_fires(cli: Cli, gelu: Path) -> None:
    rules = gelu.with_name("both.py")
    written(rules, BAD["unknown_op"][0] + GOOD)
    report = cli("fuse", gelu, "--rules", rules, "--disable", "GeluErf", "--json", "-").report
    assert "Good" in {site["rule"] for site in report["rewrites"]}
    assert [failure["rule"] for failure in report["failures"]] == ["Bad"]
    assert report["error"]["hint"] == "did you mean Erf?"


def test_each_bad_rule_is_an_error_of_its_own(cli: Cli, gelu: Path) -> None:
    files = [gelu.with_name(f"{name}.py") for name in ("unknown_op", "rewrite_raises", "imports_what_is_missing")]
    places = [written(file, BAD[file.stem][0].replace("Bad", file.stem)) for file in files]
    done = cli("fuse", gelu, *(word for file in files for word in ("--rules", file)))
    assert done.code == 6
    assert re.findall(r"^  --> (.*)$", done.err, re.MULTILINE) == [places[0], places[2], places[1]]


def test_a_bad_rule_that_is_disabled_is_not_told(cli: Cli, gelu: Path) -> None:
    rules = gelu.with_name("bad.py")
    written(rules, BAD["unknown_op"][0])
    assert cli("fuse", gelu, "--rules", rules, "--disable", "Bad").code == 0
    assert cli("fuse", gelu, "--rules", rules, "--only", "GeluErf").code == 0
    assert cli("fuse", gelu, "--rules", rules, "--rules", rules).err.count("error[") == 1


def test_rules_lists_the_good_ones_and_tells_the_bad(cli: Cli, tmp_path: Path) -> None:
    rules = tmp_path / "both.py"
    place = written(rules, BAD["unknown_attribute"][0] + GOOD)
    done = cli("rules", "--rules", rules)
    check_one_error(done, "Bad", place, "no attribute or input 'axes'", "axis")
    assert "Good" in done.out
    assert cli("rules", "Good", "--rules", rules).code == 0
    check_one_error(cli("rules", "Bad", "--rules", rules), "Bad", place, "", "")
    assert cli("rules", "--rules", rules, "--json", "-").report["failures"][0]["place"] == place


@pytest.mark.parametrize("source", ["nowhere.py", "no_such_module", "no_such.module", "rules.txt", ".", ".py"])
def test_a_source_that_is_not_there_is_a_wrong_command_line(cli: Cli, gelu: Path, source: str) -> None:
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "--rules", source)
    assert done.code == 2
    assert f"the rules in '{source}' cannot be imported" in done.err
    assert snapshot(gelu.parent) == before


def test_a_file_without_rules_is_a_wrong_command_line(cli: Cli, gelu: Path) -> None:
    gelu.with_name("empty.py").write_text("")
    done = cli("fuse", gelu, "--rules", gelu.with_name("empty.py"))
    assert done.code == 2
    assert "there is no rule in" in done.err


def test_a_module_below_another_may_be_broken(
    cli: Cli, gelu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "planted_rules"
    package.mkdir()
    (package / "__init__.py").write_text("")
    written(package / "good.py", GOOD + "# HERE")
    place = written(package / "broken.py", BAD["imports_what_is_missing"][0])
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("fuse", gelu, "--rules", "planted_rules", "--disable", "GeluErf", "--json", "-")
    check_one_error(done, "planted_rules.broken", place, "No module named 'no_such_module'", "install")
    assert "Good" in {site["rule"] for site in done.report["rewrites"]}


def test_one_file_under_two_names_is_one_rule(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "planted_twice.py", GOOD + "# HERE")
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("rules", "--rules", "planted_twice", "--rules", tmp_path / "planted_twice.py")
    assert done.code == 0, done.err
    assert done.out.count("Good") == 1


def test_the_error_that_the_page_shows(cli: Cli, tmp_path: Path, root: Path) -> None:
    page = (root / "docs" / "plug-ins.md").read_text()
    file, shown = re.findall(r"^```\w+ softsing.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "softsing.py").write_text(file)
    done = cli("rules", "--rules", tmp_path / "softsing.py")
    assert done.err == shown.replace("softsing.py:", f"{tmp_path}/softsing.py:")


def test_sets_without_an_order_of_chance_are_fine(cli: Cli, gelu: Path) -> None:
    rules = gelu.with_name("fine.py")
    source = """
NAMES = {"Erf", "Tanh"}

class Fine(Rule):
    stage = "recover"
    def pattern(self, op, x, k: Number):
        first, second = (getattr(op, name)(x) for name in sorted(NAMES))
        return op.Div(first | second | x, k)
    def where(self, root):
        axes = {0, -1}
        for axis in axes | set(range(2)):
            if root.shape[axis] == 0:
                return "it is empty"
        return any(name.isupper() for name in NAMES) or "Erf" in NAMES
    def rewrite(self, op, root):
        return None
"""
    rules.write_text(HEAD + source)
    assert cli("fuse", gelu, "--rules", rules).code == 0


# ---- names that are known --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "op", "attrs"),
    [
        ("", "ReduceMean", ["axes", "keepdims"]),
        ("", "Upsample", ["mode"]),
        ("", "Softmax", ["axis"]),
        ("", "SimplifiedLayerNormalization", ["epsilon"]),
        ("ai.onnx.ml", "Scaler", ["offset"]),
        ("com.microsoft", "QAttention", ["num_heads"]),
        ("com.microsoft", "OfALaterRelease", ["anything"]),
        ("ir", "Attention", ["scale", "bias"]),
        ("some.domain", "Op", ["anything"]),
    ],
)
def test_what_is_known_or_cannot_be_known_is_accepted(domain: str, op: str, attrs: list[str]) -> None:
    check_operation(domain, op, 1, attrs)


@pytest.mark.parametrize(
    ("domain", "op", "attrs", "said"),
    [
        ("", "Gellu", [], "no operator is called 'Gellu'"),
        ("", "FastGelu", [], "no operator is called 'FastGelu'"),
        ("ai.onnx.ml", "Skaler", [], "no operator is called 'ai.onnx.ml.Skaler'"),
        ("com.microsoft", "QAtention", [], "no operator is called 'com.microsoft.QAtention'"),
        ("com.microsoft", "QAttention", ["num_head"], "com.microsoft.QAttention has no attribute or input 'num_head'"),
        ("ir", "Atention", [], "no operator is called 'ir.Atention'"),
        ("ir", "Attention", ["factor"], "ir.Attention has no attribute or input 'factor'"),
    ],
)
def test_what_nobody_knows_is_refused(domain: str, op: str, attrs: list[str], said: str) -> None:
    with pytest.raises(Mistake, match=re.escape(said)) as caught:
        check_operation(domain, op, 1, attrs)
    assert caught.value.hint


def test_the_table_of_contrib_operators_is_that_of_onnxruntime(root: Path) -> None:
    runtime = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    standard = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}
    found: dict[str, set[str]] = {}
    for schema in runtime.get_all_operator_schema():
        key = (schema.domain, schema.name)
        if schema.domain in ("", "com.microsoft") and key not in standard:
            names = {*schema.attributes, *(parameter.name for parameter in schema.inputs)}
            found.setdefault(".".join(filter(None, key)), set()).update(names)
    table = {op: set(names) for op, names in json.loads((root / "graphopt/rewrite/contrib.json").read_text()).items()}
    # A later release may have more.
    assert {op: names - found.get(op, set()) for op, names in table.items()} == {op: set() for op in table}
