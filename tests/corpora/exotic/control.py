"""If, Loop and Scan: captures, shadows, scan outputs, no trips, containers that are carried."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Made, Theme, text, weights

exotic = Theme("control")


@exotic()
def capture_of_a_capture() -> onnx.ModelProto:
    """Three levels of If; the innermost reads values of the outermost scope."""
    return text(
        """g (float[N] x, bool b) => (float[N] y) <float[1] w = {2}> {
            s = Mul(x, w)
            y = If(b) <
                then_branch = t1 () => (float[N] p) {
                    p = If(b) <
                        then_branch = t2 () => (float[N] q) {
                            q = If(b) <then_branch = t3 () => (float[N] r) { r = Sub(s, w) },
                                       else_branch = e3 () => (float[N] r2) { r2 = Identity(x) }> },
                        else_branch = e2 () => (float[N] q2) { q2 = Neg(s) }> },
                else_branch = e1 () => (float[N] p2) { p2 = Add(s, x) }> }"""
    )


@exotic()
def constant_condition() -> onnx.ModelProto:
    """An If whose condition is known, with captures and an initializer inside."""
    return text(
        """g (float[2] x) => (float[2] y) {
            c = Constant<value: tensor = bool {1}>()
            y = If(c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Add(x, w) },
                       else_branch = e () => (float[2] q) { q = Neg(x) }> }"""
    )


@exotic()
def branches_of_one_name() -> onnx.ModelProto:
    """Both branches call their values alike."""
    return text(
        """g (float[N] x, bool b) => (float[N] y) {
            y = If(b) <then_branch = t () => (float[N] out) { i = Neg(x) out = Abs(i) },
                       else_branch = e () => (float[N] out) { i = Exp(x) out = Relu(i) }> }"""
    )


@exotic(checked=False)
def branches_of_two_shapes() -> onnx.ModelProto:
    """The branches give other sizes, and other ranks: the output has neither."""
    return text(
        """g (float[2, 3] x, bool b) => (float[] y) {
            y = If(b) <then_branch = t () => (float[3] p) <int64[1] a = {0}> { p = ReduceSum<keepdims = 0>(x, a) },
                       else_branch = e () => (float[2, 3] q) { q = Identity(x) }> }"""
    )


@exotic()
def branch_gives_what_it_captures() -> onnx.ModelProto:
    """A branch without nodes: its output is a value of the outer scope, or an initializer of its own."""
    return text(
        """g (float[2] x, bool b) => (float[2] y) {
            y = If(b) <then_branch = t () => (float[2] p) <float[2] p = {3, 4}> { },
                       else_branch = e () => (float[2] q) { q = Identity(x) }> }"""
    )


@exotic()
def if_without_operands() -> onnx.ModelProto:
    """An If at the graph's outputs that gives two values, the first of which nobody reads."""
    return text(
        """g (bool b) => (int64[2] y) {
            u, y = If(b) <
              then_branch = t () => (float p, int64[2] q) <float p = {1}, int64[2] q = {1, 2}> { },
              else_branch = e () => (float p, int64[2] q) <float p = {2}, int64[2] q = {3, 4}> { }> }"""
    )


@exotic()
def shadowed_by_a_later_name() -> onnx.ModelProto:
    """Two Ifs, one after the other, whose branches call their values alike."""
    return text(
        """g (float[N] x, bool b) => (float[N] y) {
            h = If(b) <then_branch = t () => (float[N] p) { i = Neg(x) p = Abs(i) },
                       else_branch = e () => (float[N] q) { q = Identity(x) }>
            y = If(b) <then_branch = t () => (float[N] p) { i = Exp(h) p = Relu(i) },
                       else_branch = e () => (float[N] q) { q = Sub(h, x) }> }"""
    )


@exotic()
def scan_outputs() -> onnx.ModelProto:
    """A Loop with a state, a scan output, and a scan output that nobody reads."""
    return text(
        """g (float[2] x) => (float[2] y, float[3, 2] all) {
            n = Constant<value: tensor = int64 {3}>()
            y, unread, all = Loop(n, , x) <
                body = b (int64 i, bool go, float[2] s) => (bool on, float[2] next, int64 number, float[2] seen)
                { on = Identity(go) next = Add(s, x) number = Identity(i) seen = Neg(next) }> }"""
    )


@exotic()
def zero_trips() -> onnx.ModelProto:
    """A Loop that never runs: its scan output has no rows."""
    return text(
        """g (float[2] x) => (float[2] y, float[K, 2] all) {
            n = Constant<value: tensor = int64 {0}>()
            y, all = Loop(n, , x) <body = b (int64 i, bool go, float[2] s) => (bool on, float[2] next, float[2] seen)
                { on = Identity(go) next = Add(s, x) seen = Neg(next) }> }"""
    )


@exotic()
def stops_by_itself() -> onnx.ModelProto:
    """A Loop without a trip count, ended by its condition."""
    return text(
        """g (float[1] x) => (float[1] y, int64 trips) <float limit = {100}, int64 zero = {0}, int64 one = {1}> {
            c = Constant<value: tensor = bool {1}>()
            y, trips = Loop(, c, x, zero) <
                body = b (int64 i, bool go, float[1] s, int64 k) => (bool on, float[1] next, int64 m) {
                    a = Abs(s) d = Add(a, a) next = Add(d, limit) m = Add(k, one)
                    r = ReduceMax<keepdims = 0>(next) on = Less(r, limit) }> }"""
    )


@exotic()
def no_states() -> onnx.ModelProto:
    """A Loop that carries nothing and has scan outputs only."""
    return text(
        """g (float[2] x, int64 n) => (float[K, 2] y) {
            c = Constant<value: tensor = bool {1}>()
            y = Loop(n, c) <body = b (int64 i, bool go) => (bool on, float[2] row)
                { on = Identity(go) f = Cast<to = 1>(i) row = Mul(x, f) }> }"""
    )


@exotic()
def carried_sequence() -> onnx.ModelProto:
    """A Loop that carries a sequence and appends to it."""
    return text(
        """g (float[2] x) => (float[M] y) {
            n = Constant<value: tensor = int64 {3}>()
            s0 = SequenceEmpty<dtype = 1>()
            s = Loop(n, , s0) <body = b (int64 i, bool go, seq(float[2]) s) => (bool on, seq(float[2]) t)
                { on = Identity(go) f = Cast<to = 1>(i) r = Mul(x, f) t = SequenceInsert(s, r) }>
            y = ConcatFromSequence<axis = 0>(s) }"""
    )


@exotic()
def growing_state() -> onnx.ModelProto:
    """A Loop whose state grows with each trip."""
    return text(
        """g (float[K] x) => (float[M] y) {
            n = Constant<value: tensor = int64 {3}>()
            y = Loop(n, , x) <body = b (int64 i, bool go, float[S] s) => (bool on, float[T] t)
                { on = Identity(go) t = Concat<axis = 0>(s, x) }> }"""
    )


@exotic()
def invariant_state() -> onnx.ModelProto:
    """A Loop that carries a value it never changes, and one that it swaps with another."""
    return text(
        """g (float[2] x, float[2] z) => (float[2] a, float[2] b, float[2] c) {
            n = Constant<value: tensor = int64 {3}>()
            k = Neg(x)
            a, b, c = Loop(n, , x, z, k) <
                body = l (int64 i, bool go, float[2] p, float[2] q, float[2] r)
                => (bool on, float[2] p2, float[2] q2, float[2] r2)
                { on = Identity(go) p2 = Identity(q) q2 = Identity(p) r2 = Identity(r) }> }"""
    )


@exotic()
def same_output_twice() -> onnx.ModelProto:
    """A Loop body that gives one value as state and as scan output."""
    return text(
        """g (float[2] x) => (float[2] y, float[3, 2] all) {
            n = Constant<value: tensor = int64 {3}>()
            y, all = Loop(n, , x) <body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] t)
                { on = Identity(go) t = Add(s, x) }> }"""
    )


@exotic()
def loop_in_a_loop() -> onnx.ModelProto:
    """A Loop in a Loop, both of which read the counter of the outer one."""
    return text(
        """g (float[2] x) => (float[2] y) {
            n = Constant<value: tensor = int64 {3}>()
            y = Loop(n, , x) <body = outer (int64 i, bool go, float[2] s) => (bool on, float[2] t) {
                on = Identity(go)
                t = Loop(i, , s) <body = inner (int64 j, bool go2, float[2] u) => (bool on2, float[2] v) {
                    on2 = Identity(go2) k = Add(i, j) f = Cast<to = 1>(k) w = Mul(u, f) v = Add(w, x) }> }> }"""
    )


@exotic()
def scan_with_captures() -> onnx.ModelProto:
    """A Scan over rows with a state, whose body reads a weight outside."""
    model = text(
        """g (float[4, 3] x, float[3] h) => (float[3] last, float[4, 3] all) {
            last, all = Scan<num_scan_inputs = 1, body = b (float[3] s, float[3] row) => (float[3] t, float[3] o)
                { m = Mul(s, w) t = Add(m, row) o = Tanh(t) }>(h, x) }"""
    )
    model.graph.initializer.append(weights("w", 3))
    return model


@exotic()
def scan_backwards() -> onnx.ModelProto:
    """A Scan over the second axis from its end, which writes from the end as well."""
    return text(
        """g (float[2, 4] x) => (float[2] last, float[2, 4] all) <float[2] h = {0, 1}> {
            last, all = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                scan_output_axes = [1], scan_output_directions = [1],
                body = b (float[2] s, float[2] c) => (float[2] t, float[2] o)
                { t = Add(s, c) o = Neg(t) }>(h, x) }"""
    )


@exotic()
def scan_8() -> onnx.ModelProto:
    """The Scan of opset 8, with a batch axis and sequence_lens left out."""
    return text(
        """g (float[1, 2] h, float[1, 3, 2] x) => (float[1, 2] last, float[1, 3, 2] all) {
            last, all = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] c) => (float[2] t, float[2] o)
                { t = Add(s, c) o = Identity(t) }>(, h, x) }""",
        opset=8,
        ir=4,
    )


@exotic()
def at_all_outputs() -> onnx.ModelProto:
    """Every output of the graph is one of an If, and one of them is read by another If."""
    return text(
        """g (float[N] x, bool b) => (float[N] y, float[N] z, float[N] w) {
            y, z = If(b) <
                then_branch = t () => (float[N] p, float[N] q) { p = Neg(x) q = Abs(x) },
                else_branch = e () => (float[N] p, float[N] q) { p = Abs(x) q = Neg(x) }>
            w = If(b) <then_branch = t () => (float[N] p) { p = Mul(y, z) },
                       else_branch = e () => (float[N] p) { p = Add(y, z) }> }"""
    )


@exotic()
def captured_graph_output() -> onnx.ModelProto:
    """A value that a branch captures is an output of the graph, too; so is an initializer that one captures."""
    return text(
        """g (float[2] x, bool b) => (float[2] h, float[2] y, float[2] w) <float[2] w = {1, 2}> {
            h = Neg(x)
            y = If(b) <then_branch = t () => (float[2] p) { p = Add(h, w) },
                       else_branch = e () => (float[2] q) { q = Mul(h, w) }> }"""
    )


@exotic()
def optional_from_a_branch() -> onnx.ModelProto:
    """An If that gives an optional, empty in one branch."""
    model = text(
        """g (float[2] x, bool b) => (bool y) {
            o = If(b) <then_branch = t () => (optional(float[2]) p) { p = Optional(x) },
                       else_branch = e () => (optional(float[2]) q) { q = Optional() }>
            y = OptionalHasElement(o) }"""
    )
    empty = model.graph.node[0].attribute[1].g.node[0]
    empty.attribute.append(helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    return model


@exotic()
def sequence_map() -> onnx.ModelProto:
    """A SequenceMap whose body captures a value."""
    return text(
        """g (seq(float[N]) s, float[1] x) => (seq(float[N]) y) {
            y = SequenceMap(s) <body = b (float[N] e) => (float[N] o) { m = Mul(e, x) o = Neg(m) }> }"""
    )


@exotic()
def unread_subgraph_input() -> Made:
    """A Loop body that reads neither its counter nor its condition."""
    model = text(
        """g (float[2] x, int64 n, bool c) => (float[2] y) {
            y = Loop(n, c, x) <body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t)
                { on = Constant<value: tensor = bool {1}>() t = Mul(s, x) }> }"""
    )
    feeds = {"x": np.array([1.5, -2.0], np.float32), "n": np.array(4), "c": np.array(True)}
    return Made(model, feeds=feeds)
