"""Mistakes that are made on purpose: each is one, and the same for one seed."""

import random
import sys
from itertools import islice
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from mutations import CHANGES, Mutant, mutants

from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

NET = """
opset 20
(x: float32[2, 8], m: bool[2, 8]) -> (y) {
  w = float32[8, 8] random(1)
  a = Add(MatMul(x, w), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
  n = LayerNormalization(a, [1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0], axis=-1)
  y = Softmax(Where(m, Transpose(Transpose(n, perm=[1, 0]), perm=[1, 0]), -1.0), axis=-1)
}
"""


def drawn(seed: int) -> list[Mutant]:
    proto = onnx.shape_inference.infer_shapes(model_to_proto(parse(NET)))
    return list(islice(mutants(proto, random.Random(seed)), 60))


def test_mutants_are_of_every_kind_and_the_same_for_one_seed() -> None:
    found = drawn(0)
    assert {mutant.kind for mutant in found} == {change.__name__ for change in CHANGES}
    assert [mutant.proto for mutant in drawn(0)] == [mutant.proto for mutant in found]
    assert [mutant.proto for mutant in drawn(1)] != [mutant.proto for mutant in found]


def test_a_mutant_differs_in_one_node_or_one_constant() -> None:
    before = onnx.shape_inference.infer_shapes(model_to_proto(parse(NET))).graph
    for mutant in drawn(0):
        after = mutant.proto.graph
        nodes = sum(a != b for a, b in zip(before.node, after.node, strict=True))
        constants = sum(a != b for a, b in zip(before.initializer, after.initializer, strict=True))
        assert nodes + constants == 1, (mutant.kind, mutant.node)
        assert mutant.near
