"""What docs/kernels.md shows is done: its operator and its rule are put where it says, and tested as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .test_docs import blocks

PAGE = "docs/kernels.md"

# A process of its own: operators are looked for once.
PROGRAM = """
import sys
from pathlib import Path

import graphopt.kernels
from matmul_add_relu import MatMulAddRelu

graphopt.kernels.__path__.append(str(Path.cwd()))

from graphopt.ir.fused import fused_ops
from graphopt.rewrite import CompiledRule
from graphopt.runtime import Runner
from graphopt.testing import check_rule, parse_cases, run_case

assert "FusedMatMulAddRelu" in fused_ops()
(case,) = parse_cases(Path("cases.txt"))
with Runner() as runner:
    outcome = run_case(case, [CompiledRule(MatMulAddRelu())], runner)
assert outcome.compared and not outcome.problem, outcome.problem
assert check_rule(MatMulAddRelu).fired >= 10
"""


def test_the_operator_of_the_page(tmp_path: Path) -> None:
    files = {name: body for _, _, name, body in blocks(PAGE) if name}
    assert files.keys() == {"fused_matmul_add_relu.py", "matmul_add_relu.py", "cases"}
    for name, body in files.items():
        (tmp_path / (name if name.endswith(".py") else f"{name}.txt")).write_text(body)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
