"""The proof of integer kernels, on small models written by hand: what fuses, and what does not and why."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphopt.quantize.cpu import detected
from graphopt.quantize.proof.kernels import origin
from graphopt.quantize.proof.prove import Planned, Proof, Run, prove
from graphopt.runtime import Runner

RNG = np.random.default_rng(0)
WEIGHTS: dict[str, Any] = {
    "w": RNG.integers(-127, 128, (32, 16)).astype(np.int8),
    "ws": np.full(16, 0.02, np.float32),
    "wz": np.zeros(16, np.int8),
    "xs": np.float32(0.03),
    "xz": np.uint8(128),
    "b": RNG.standard_normal(16).astype(np.float32),
}
FEED = {"x": RNG.standard_normal((2, 5, 32)).astype(np.float32)}
FLAT = {"x": FEED["x"][0]}
IMAGE = {"x": RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)}
IMAGES: dict[str, Any] = WEIGHTS | {
    "cw": RNG.integers(-99, 99, (8, 4, 3, 3)).astype(np.int8),
    "cs": np.full(8, 0.01, np.float32),
    "cb": np.zeros(8, np.int32),
    "cbs": np.full(8, 3e-4, np.float32),
    "yz": np.uint8(0),
}

node = helper.make_node


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


def qdq(x: str = "x", to: str = "xd", zero: str = "xz") -> list[NodeProto]:
    q = f"{to}_q"
    return [node("QuantizeLinear", [x, "xs", zero], [q]), node("DequantizeLinear", [q, "xs", zero], [to])]


def weights(w: str = "w", to: str = "wd") -> NodeProto:
    return node("DequantizeLinear", [w, "ws", "wz"], [to], axis=1)


def matmul(x: str = "xd", w: str = "wd", y: str = "y", name: str = "") -> NodeProto:
    return node("MatMul", [x, w], [y], name)


def model(
    nodes: Sequence[NodeProto],
    tensors: dict[str, Any] = WEIGHTS,
    shape: Sequence[str | int] = ("B", "S", 32),
    outputs: Sequence[str] = ("y",),
    inputs: Sequence[onnx.ValueInfoProto] = (),
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def proven(runner: Runner, proto: bytes, *sites: str, scheme: str = "static", feed: Any = FEED) -> Proof:
    return prove(runner, proto, [Planned(name, "MatMul", "w", scheme) for name in sites or ("y",)], feeds=[feed])


def only(proof: Proof) -> Run:
    (run,) = proof.runs
    return run


def test_a_product_between_its_nodes_runs_on_integers_and_its_time_is_known(runner: Runner) -> None:
    product = [weights(), *qdq(), matmul(y="m"), node("Add", ["m", "b"], ["y"])]
    proof = proven(runner, model(product))
    run = only(proof)
    assert (run.kernel, run.kind, run.reason) == ("com.microsoft.MatMulIntegerToFloat", "integer", "")
    assert run.micros is not None
    assert (proof.planned, proof.running, proof.all, proof.share) == (1, 1, 1, 1.0)
    assert proof.unfused == ()


def test_a_float_product_that_was_planned_is_not_counted(runner: Runner) -> None:
    floats = WEIGHTS | {"f": RNG.standard_normal((32, 16)).astype(np.float32)}
    proof = proven(runner, model([matmul("x", "f")], floats))
    assert (proof.planned, proof.running, proof.share) == (1, 0, 0.0)
    assert only(proof).reason == "stays float: its weights are not written as integers"


def test_the_share_is_over_all_products_and_not_over_those_planned(runner: Runner) -> None:
    floats = WEIGHTS | {"f": RNG.standard_normal((32, 16)).astype(np.float32)}
    proto = model([weights(), *qdq(), matmul(), matmul("x", "f", "z")], floats, outputs=("y", "z"))
    proof = proven(runner, proto)
    assert (proof.running, proof.planned, proof.all, proof.share) == (1, 1, 2, 0.5)
    assert [(run.name, run.scheme, run.reason) for run in proof.runs] == [("y", "static", ""), ("z", "", "not planned")]


def test_products_of_activations_and_outer_products_are_none_of_them(runner: Runner) -> None:
    row = WEIGHTS | {"row": np.ones((1, 4), np.float32)}
    nodes = [weights(), *qdq(), matmul(), node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), matmul("x", "t", "z")]
    nodes += [node("ReduceMax", ["x"], ["r"], axes=None, keepdims=1), matmul("r", "row", "o")]
    assert proven(runner, model(nodes, row, outputs=("y", "z", "o"))).all == 1


def test_the_bias_of_two_dimensions_makes_a_gemm_that_stays_float(runner: Runner) -> None:
    nodes = [weights(), *qdq(), matmul(y="m"), node("Add", ["m", "b"], ["y"])]
    run = only(proven(runner, model(nodes, shape=("B", 32)), feed=FLAT))
    assert (run.kernel, run.integer) == ("Gemm", False)
    assert "two dimensions" in run.reason


def test_a_gemm_wants_an_int32_bias(runner: Runner) -> None:
    tensors = WEIGHTS | {"bq": np.ones(16, np.int32), "bs": np.full(16, 6e-4, np.float32)}
    bias = node("DequantizeLinear", ["bq", "bs"], ["bd"], axis=0)
    gemm = [weights(), *qdq(), bias, node("Gemm", ["xd", "wd", "bd"], ["y"])]
    assert only(proven(runner, model(gemm, tensors, ("B", 32)), feed=FLAT)).kernel == "com.microsoft.QGemm"
    floats = [weights(), *qdq(), node("Gemm", ["xd", "wd", "b"], ["y"])]
    assert "takes int32" in only(proven(runner, model(floats, shape=("B", 32)), feed=FLAT)).reason


def test_a_quantized_result_is_found_behind_its_nodes(runner: Runner) -> None:
    run = only(proven(runner, model([weights(), *qdq(), matmul(y="m"), *qdq("m", "y")])))
    assert (run.kernel, run.integer) == ("QLinearMatMul", True)


def dynamic(index: str, y: str, quantize: bool = True) -> list[NodeProto]:
    parts = [node("DynamicQuantizeLinear", ["x"], ["xq", "s", "z"])] if quantize else []
    parts += [node("MatMulInteger", ["xq", f"w{index}", "z", "wz"], [f"i{index}"])]
    parts += [node("Cast", [f"i{index}"], [f"f{index}"], to=1), node("Mul", ["s", f"ws{index}"], [f"sw{index}"])]
    return [*parts, node("Mul", [f"f{index}", f"sw{index}"], [y])]


def test_a_dynamic_product_is_found_behind_its_scales(runner: Runner) -> None:
    tensors = WEIGHTS | {"w1": WEIGHTS["w"], "w2": -WEIGHTS["w"], "ws1": WEIGHTS["ws"], "ws2": 2 * WEIGHTS["ws"]}
    one = proven(runner, model(dynamic("1", "y"), tensors), scheme="dynamic")
    assert only(one).kernel == "com.microsoft.DynamicQuantizeMatMul"
    nodes = dynamic("1", "y") + dynamic("2", "v", quantize=False)
    two = proven(runner, model(nodes, tensors, outputs=("y", "v")), "y", "v", scheme="dynamic")
    assert [run.kernel for run in two.runs] == ["com.microsoft.MatMulIntegerToFloat"] * 2
    assert len({run.weight for run in two.runs}) == 1  # the caller's word for it is kept


def test_integer_weights_are_a_class_of_their_own(runner: Runner) -> None:
    proof = proven(runner, model([weights(), matmul("x")]), scheme="weights")
    run = only(proof)
    assert (run.kernel, run.kind, run.integer) == ("com.microsoft.MatMulNBits", "weights", True)
    assert run.reason == "multiplies bytes"
    exact = prove(
        runner,
        model([weights(), matmul("x")]),
        [Planned("y", "MatMul", "w", "weights")],
        entries={"session.qdq_matmulnbits_accuracy_level": "0"},
    )
    assert only(exact).reason == "multiplies floats"
    assert only(exact).micros is None
    assert not only(proven(runner, model([weights(), matmul("x")]), scheme="static")).integer


def test_weights_that_two_products_read_stay_float_without_activations(runner: Runner) -> None:
    nodes = [weights(), weights(to="wd2"), matmul("x"), matmul("x", "wd2", "z")]
    proof = proven(runner, model(nodes, outputs=("y", "z")), "y", "z", scheme="weights")
    assert proof.running == 0
    assert all("several nodes" in run.reason for run in proof.runs)


def test_shared_weights_and_dequantizers_are_told_apart(runner: Runner) -> None:
    nodes = [weights(), *qdq(), matmul(), node("Relu", ["xd"], ["r"]), matmul("r", "wd", "z")]
    proof = proven(runner, model(nodes, outputs=("y", "z")), "y", "z")
    assert [(run.kernel, run.integer) for run in proof.runs] == [
        ("com.microsoft.MatMulIntegerToFloat", True),
        ("MatMul", False),
    ]
    assert proof.runs[1].reason == "stays float: its activation is not written as integers"


def test_products_of_shared_weights_whose_values_are_gone_are_found_in_their_order(runner: Runner) -> None:
    copies = WEIGHTS | {"w_1": -WEIGHTS["w"]}
    nodes = [weights(), weights("w_1", "vd"), *qdq(), matmul(y="y"), matmul(w="vd", y="z")]
    proof = proven(runner, model(nodes, copies, outputs=("y", "z")), "gone", "gone too")
    assert [(run.name, run.kind) for run in proof.runs] == [("gone", "integer"), ("gone too", "integer")]


def test_products_without_integer_form_are_named(runner: Runner) -> None:
    fused = node("FusedMatMul", ["xd", "wd"], ["y"], domain="com.microsoft", alpha=0.5)
    run = only(proven(runner, model([weights(), *qdq(), fused])))
    assert run.reason == "stays float: com.microsoft.FusedMatMul has no integer form behind DequantizeLinear"
    tensors = {"w": RNG.integers(-99, 99, (32, 96)).astype(np.int8), "ws": np.full(96, 0.02, np.float32)}
    tensors |= {"wz": np.zeros(96, np.int8), "bias": np.zeros(96, np.float32)}
    heads = node("Attention", ["xd", "wd", "bias"], ["y"], domain="com.microsoft", num_heads=4)
    run = only(proven(runner, model([weights(), *qdq(), heads], WEIGHTS | tensors)))
    assert run.reason == "stays float: com.microsoft.Attention has no integer form behind DequantizeLinear"


def test_what_stands_between_is_named(runner: Runner) -> None:
    spread = [weights(), *qdq(), node("Expand", ["xd", "three"], ["t"]), matmul("t")]
    proof = proven(runner, model(spread, WEIGHTS | {"three": np.array([2, 1, 32])}))
    run = only(proof)
    assert (run.kernel, run.integer, proof.share) == ("com.microsoft.MatMulNBits", False, 0.0)
    assert run.reason == "only its weights are integers: Expand stands between DequantizeLinear and the product"


@pytest.mark.skipif(detected() == "arm", reason="int8 activations have kernels on arm")
def test_int8_activations_stay_float_where_somebody_else_reads_them(runner: Runner) -> None:
    zero = WEIGHTS | {"xz": np.int8(0)}
    assert only(proven(runner, model([weights(), *qdq(), matmul()], zero))).integer  # onnxruntime makes uint8 of them
    other = [node("Relu", ["xd_q"], ["r"]), node("DequantizeLinear", ["r", "xs", "xz"], ["z"])]
    run = only(proven(runner, model([weights(), *qdq(), matmul(), *other], zero, outputs=("y", "z"))))
    assert not run.integer
    assert run.reason.startswith("stays float: its activations are int8, x86 has kernels for uint8 only")


def conv(*behind: NodeProto, bias: str = "cbd") -> list[NodeProto]:
    parts = [node("DequantizeLinear", ["cw", "cs"], ["cwd"], axis=0)]
    parts += [node("DequantizeLinear", ["cb", "cbs"], ["cbd"], axis=0)]
    return [*qdq(), *parts, node("Conv", ["xd", "cwd", bias], ["c"], "conv", pads=[1, 1, 1, 1]), *behind]


def images(runner: Runner, nodes: list[NodeProto]) -> Run:
    proto = model(nodes, IMAGES, ("B", 4, 8, 8))
    return only(prove(runner, proto, [Planned("c", "Conv", "cw", "static")], feeds=[IMAGE]))


def test_convolutions_want_their_result_quantized(runner: Runner) -> None:
    assert images(runner, conv(*qdq("c", "y"))).kernel == "com.microsoft.QLinearConv"
    relu = node("Relu", ["c"], ["r"])
    assert images(runner, conv(relu, *qdq("r", "y", "yz"))).integer
    assert "vanishes only" in images(runner, conv(relu, *qdq("r", "y"))).reason
    assert "its result is not quantized" in images(runner, conv(node("Neg", ["c"], ["y"]))).reason


def test_float_convolutions_in_other_layouts_are_found(runner: Runner) -> None:
    kernels = {f"f{index}": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32) for index in range(3)}
    nodes = []
    for index, x in enumerate(("x", "r0", "r1")):
        nodes += [node("Conv", [x, f"f{index}"], [f"c{index}"], pads=[1, 1, 1, 1])]
        nodes += [node("Relu", [f"c{index}"], [f"r{index}"])]
    proto = model([*nodes, node("Add", ["r2", "r0"], ["y"])], kernels, ("B", 4, 8, 8))
    proof = prove(runner, proto, [Planned("c1", "Conv", "f1", "static")], feeds=[IMAGE])
    assert [run.kind for run in proof.runs] == ["float"] * 3
    assert {run.kernel.rpartition(".")[2] for run in proof.runs} <= {"Conv", "FusedConv"}
    assert all(run.micros is not None for run in proof.runs)


def test_products_of_branches_are_proven_and_what_did_not_run_is_said(runner: Runner) -> None:
    def branch(name: str, nodes: list[NodeProto]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    then = branch("t", [weights(), *qdq(), matmul(y="t")])
    other = branch("e", [weights("w2"), *qdq(), matmul(y="e")])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    holder = node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    proto = model([holder], WEIGHTS | {"w2": -WEIGHTS["w"]}, inputs=[condition])
    names = [f"y:{index}/{name}" for index, name in enumerate(("t", "e"))]
    if [one.name for one in holder.attribute] != ["then_branch", "else_branch"]:
        names = [f"y:{index}/{name}" for index, name in enumerate(("e", "t"))][::-1]
    proof = proven(runner, proto, *names, feed=FEED | {"c": np.array(True)})
    assert proof.running == 2
    assert [run.reason for run in proof.runs] == ["", "did not run on these inputs"]


def test_a_planned_value_that_is_not_there_is_not_running(runner: Runner) -> None:
    proof = proven(runner, model([weights(), *qdq(), matmul()]), "y", "nowhere")
    assert (proof.planned, proof.running, proof.all) == (2, 1, 2)
    assert "no product" in proof.runs[1].reason


def test_a_product_whose_value_is_gone_is_found_by_what_is_made_of_it(runner: Runner) -> None:
    tensors = WEIGHTS | {"w1": -WEIGHTS["w"]}
    nodes = [weights(), weights("w1", "wd1"), *qdq(), matmul(y="m"), matmul(w="wd1", y="m1")]
    proto = model(
        [*nodes, node("Add", ["m", "b"], ["y"]), node("Add", ["m1", "y"], ["z"])], tensors, outputs=("y", "z")
    )
    first = Planned("gone", "MatMul", "?", "static", ("y", "z"))
    second = Planned("gone too", "MatMul", "?", "static", ("z",))
    proof = prove(runner, proto, [second, first, Planned("gone", "MatMul", "?", "static")])
    assert [bool(run.kernel) for run in proof.runs] == [True, True, False]
    assert (proof.running, proof.planned) == (2, 3)


def test_products_of_one_weight_are_told_apart_by_the_values_that_they_make(runner: Runner) -> None:
    nodes = [weights(), *qdq(), matmul(), weights("w_1", "wd1"), matmul("x", "wd1", "z")]
    proto = model(nodes, WEIGHTS | {"w_1": -WEIGHTS["w"]}, outputs=("y", "z"))
    proof = proven(runner, proto, "z", "y")
    assert [run.kernel for run in proof.runs] == ["MatMul", "com.microsoft.MatMulIntegerToFloat"]


def test_tables_are_planned_and_no_products(runner: Runner) -> None:
    index = helper.make_tensor_value_info("i", TensorProto.INT64, ["N"])
    small = WEIGHTS | {"s0": np.float32(0.1), "z0": np.int8(0)}
    product = [weights(), *qdq(), matmul()]
    rows = [node("Gather", ["w", "i"], ["g"]), node("DequantizeLinear", ["g", "s0", "z0"], ["e"])]
    whole = [weights(to="t"), node("Gather", ["t", "i"], ["e"])]
    for nodes, running in ((rows, 2), (whole, 1)):
        proto = model([*product, *nodes], small, outputs=("y", "e"), inputs=[index])
        sites = [Planned("y", "MatMul", "w", "static"), Planned("e", "Gather", "w", "weights")]
        proof = prove(runner, proto, sites, feeds=[FEED | {"i": np.array([1, 2])}])
        assert (proof.running, proof.planned, proof.all, proof.share) == (running, 2, 1, 1.0)
    assert "the whole table is dequantized" in proof.unfused[0].reason


def test_models_with_weights_in_files(runner: Runner, tmp_path: Path) -> None:
    proto = onnx.ModelProto.FromString(model([weights(), *qdq(), matmul()]))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=0)
    proof = prove(runner, path, [Planned("y", "MatMul", "w", "static")], feeds=[FEED])
    assert proof.share == 1.0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data", "model.onnx"]


def test_names_that_an_optimizer_derives() -> None:
    known = {"w", "w_1", "MatMul_3", "conv", ""}
    assert origin("w_T", known) == "w"
    assert origin("w_1", known) == "w_1"
    assert origin("w_1_T_token_2", known) == "w_1"
    assert origin("MatMul_3/MatMulAddFusion", known) == "MatMul_3"
    assert origin("MatMul_33", known) == ""
    assert origin("reorder", known) == ""
