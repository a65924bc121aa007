"""Nothing recurses over what grows with a model: each function that can call itself is listed, with what bounds it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx as nx

RULE = "parts of a pattern, which the author of a rule writes"
VALUES = "lists in the value of an attribute, or of a report: none is deeper than its author wrote it"
TYPES = "sequences of optionals of maps: the loader lets messages nest 100 deep"
SCOPES = "subgraphs in subgraphs: the loader lets messages nest 100 deep, and a subgraph is three of them"
TEXT = "brackets in a text; what is too deep is said to be"
FAR = "a number that is counted down from a constant"
UNDO = "what takes a change back is noted, not called"
ONCE = "the second call is another case of the same, which ends it"


def each(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


ALLOWED = {
    "graphopt.cli.signals": {"_remind": ONCE, "_stop": ONCE, "ignore": ONCE},
    "graphopt.ir.attributes": {"same": VALUES},
    "graphopt.ir.dims": {"_from_ast": TEXT},
    "graphopt.ir.graph": each(
        "Graph._attach Graph._connect Graph._detach Graph._move Graph._set_arity Graph._set_edits Graph._set_info "
        "Graph.rename Graph.set_content Graph.set_op Graph.set_type",
        UNDO,
    ),
    "graphopt.ir.graphsurgeon": each(
        "_FromGraphsurgeon._attribute _FromGraphsurgeon._nodes _FromGraphsurgeon._scope _ToGraphsurgeon.node "
        "_ToGraphsurgeon.scope",
        SCOPES,
    ),
    "graphopt.ir.tensor": each("Tensor._read Tensor.numpy Tensor.raw", ONCE),
    "graphopt.ir.text.parser": each(
        "_Parser.attribute _Parser.call _Parser.operand _Parser.scope _Parser.statement",
        TEXT,
    ),
    "graphopt.ir.text.writer": {
        **each("_Writer.attributes _Writer.scope _Writer.statement", SCOPES),
        "attribute_text": VALUES,
    },
    "graphopt.ir.wire": {"encode": "groups of unknown fields: the loader lets messages nest 100 deep"},
    "graphopt.passes.merge_common": {"_attribute": VALUES},
    "graphopt.pipeline.explanation": {"_walk": RULE},
    "graphopt.pipeline.finding": {"_said": RULE},
    "graphopt.pipeline.pasted": {"_listed": RULE},
    "graphopt.quantize.data.batches": {"_digest": VALUES},
    "graphopt.quantize.proof.products": {"Products._collect": SCOPES},
    "graphopt.report.explanation": {"_lines": RULE},
    "graphopt.report.schema": {"finite": VALUES},
    "graphopt.rewrite.constraints": {"Sizes._meant": RULE},
    "graphopt.rewrite.drawing": each("_Pen._alternative _Pen.part _nodes", RULE),
    "graphopt.rewrite.facts": {"same_attribute": VALUES},
    "graphopt.rewrite.hash_order": {"_is_set": RULE},
    "graphopt.rewrite.index": each(
        "_key _key_of _leaves _may _may_chain _may_leaf _may_number _may_op _may_operand _may_root _may_scaled "
        "_may_share",
        RULE,
    ),
    "graphopt.rewrite.matcher": each("Matcher._more_roots Matcher._reached", RULE),
    "graphopt.rewrite.pattern": each("_depth _size may_lack root_ops", RULE),
    "graphopt.rewrite.registry": {"_in_module": "packages in packages of rules"},
    "graphopt.rewrite.search": each(
        "Search._absent Search._assign Search._attr Search._cuts Search._match Search._match_alt "
        "Search._match_captured Search._match_chain Search._match_check Search._match_inverse Search._match_kind "
        "Search._match_leaf Search._match_node Search._match_number Search._match_op Search._match_part "
        "Search._match_scaled Search._operand Search._operands Search._spread _cost",
        RULE,
    ),
    "graphopt.runtime.runner": {"_plain_feed": VALUES},
    "graphopt.settings": {"_with_paths": VALUES},
    "graphopt.targets": {"KernelEntry.cost_of": ONCE},
    "graphopt.testing.check.grow": each(
        "Grower._grow Grower.elementwise Grower.grow Grower.known Grower.natural _optional",
        RULE,
    ),
    "graphopt.testing.check.spell": each(
        "_Speller._call _Speller._chain _Speller._combined _Speller._operand _Speller._written _Speller.read "
        "_Speller.value",
        RULE,
    ),
    "graphopt.verify.doubled": {
        **each("_double_graph _double_nodes _read", SCOPES),
        "_double_types": TYPES,
    },
    "graphopt.verify.inputs.containers": each("contained type_of", TYPES),
    "graphopt.verify.interface": {"_name": TYPES},
    "graphopt.verify.numbers.measure": {"_leaves": TYPES},
    "graphopt.verify.parts": {"type_of": TYPES},
    "graphopt.verify.structure": {"_hashable": VALUES},
    "graphopt.patterns.recover.repetition": each("_beside _merged once", FAR),
}


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for folder in ("graphopt", "patterns", "kernels"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[:2] not in (("graphopt", "patterns"), ("graphopt", "kernels")):
                name = ".".join(parts if parts[-1] != "__init__" else parts[:-1])
                yield name if folder == "graphopt" else f"graphopt.{name}", ast.parse(path.read_text())


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every function with its name, that of its class or of the function around it in front."""
    for child in ast.iter_child_nodes(tree):
        name = outer
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{outer}.{child.name}" if outer else child.name
            if not isinstance(child, ast.ClassDef):
                yield name, child
        yield from functions(child, name)


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(name here, name there) of what a module imports from another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)


def mentioned(function: ast.AST) -> Iterator[str]:
    """`f` and `module.f` as they are written, `self.f` for methods; not within functions inside, nor local names."""
    arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} - {"self", "cls"}
    assigned = {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    local = arguments | assigned
    stack = list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Name) and node.id not in local:
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in local:
            yield f"{node.value.id}.{node.attr}"
        stack += ast.iter_child_nodes(node)


def calls(trees: Mapping[str, ast.Module]) -> nx.DiGraph[str]:
    """Which function may call which, by names; a function is taken to call those inside it."""
    known = {
        f"{module}.{name}": (module, name, node) for module, tree in trees.items() for name, node in functions(tree)
    }
    imports = {module: dict(imported(tree)) for module, tree in trees.items()}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for caller, (module, name, node) in known.items():
        outer = name.rpartition(".")[0]
        for text in mentioned(node):
            first, _, rest = text.partition(".")
            if first in ("self", "cls"):
                candidates = [f"{module}.{name.split('.')[0]}.{rest}"]
            elif first in imports[module]:
                candidates = [f"{imports[module][first]}.{rest}".rstrip(".")]
            else:
                # A method is no name inside its class.
                around = ["", f"{name}.", *([f"{outer}."] if f"{module}.{outer}" in known else [])]
                candidates = [f"{module}.{where}{text}" for where in around]
            graph.add_edges_from((caller, found) for found in candidates if found in known)
    return graph


def recursive(root: Path) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    trees = dict(modules(root))
    graph = calls(trees)
    for group in nx.strongly_connected_components(graph):
        for one in group:
            if len(group) > 1 or graph.has_edge(one, one):
                module = max((name for name in trees if one.startswith(f"{name}.")), key=len)
                found[module].add(one.removeprefix(f"{module}."))
    return dict(found)


def test_each_function_that_can_call_itself_is_listed_with_what_bounds_it(root: Path) -> None:
    assert recursive(root) == {module: set(names) for module, names in ALLOWED.items()}


def test_a_function_that_calls_itself_through_another_module_is_found(tmp_path: Path) -> None:
    package = tmp_path / "graphopt"
    package.mkdir()
    (package / "a.py").write_text("from graphopt.b import two\n\ndef one(n):\n    return two(n)\n")
    (package / "b.py").write_text(
        "def two(n):\n    from graphopt.a import one\n    return one(n)\n\ndef three(): ...\n"
    )
    (package / "c.py").write_text(
        "class C:\n    def four(self):\n        return self.five()\n    def five(self):\n        return self.six\n"
    )
    (package / "d.py").write_text(
        "class D:\n    def six(self):\n        return self.seven()\n    def seven(self):\n        return self.six()\n"
    )
    assert recursive(tmp_path) == {"graphopt.a": {"one"}, "graphopt.b": {"two"}, "graphopt.d": {"D.six", "D.seven"}}
