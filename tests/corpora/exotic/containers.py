"""Sequences, optionals, maps, strings."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Made, Theme, built, info, text

exotic = Theme("containers")


@exotic()
def sequence_through() -> onnx.ModelProto:
    """A sequence comes in, is changed, and goes out."""
    return text(
        """g (seq(float[N]) s, float[N] x) => (seq(float[N]) y, int64 n) <int64 first = {0}> {
            t = SequenceInsert(s, x, first) y = SequenceErase(t) n = SequenceLength(y) }"""
    )


@exotic()
def sequence_untouched() -> onnx.ModelProto:
    """A sequence goes through an Identity, and to the output."""
    return text("g (seq(float[N]) s) => (seq(float[N]) y) { y = Identity(s) }")


@exotic()
def sequence_of_constants() -> onnx.ModelProto:
    """A sequence of constants, of which one is taken."""
    return text(
        """g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[3] b = {1, 2, 3}, int64 k = {-2}> {
            s = SequenceConstruct(a, b) t = SequenceAt(s, k) y = Add(x, t) }"""
    )


@exotic()
def split_to_sequence() -> onnx.ModelProto:
    """A tensor is split, with and without its axis kept, and put together again."""
    return text(
        """g (float[4, 3] x) => (float[4, 3] y, float[4, 3] z, seq(float[3]) rows) <int64[2] parts = {1, 3}> {
            s = SplitToSequence<axis = 0>(x, parts) y = ConcatFromSequence<axis = 0>(s)
            rows = SplitToSequence<axis = 0, keepdims = 0>(x)
            z = ConcatFromSequence<axis = 0, new_axis = 1>(rows) }"""
    )


@exotic()
def empty_sequence() -> onnx.ModelProto:
    """A sequence of nothing at the output."""
    return text("g (float[2] x) => (seq(int64[K]) y, float[2] z) { y = SequenceEmpty<dtype = 7>() z = Neg(x) }")


@exotic()
def optional_input() -> onnx.ModelProto:
    """An optional tensor is asked whether it has something, and opened."""
    return text(
        """g (optional(float[2]) o) => (float[2] y, bool has) {
            has = OptionalHasElement(o) y = OptionalGetElement(o) }"""
    )


@exotic()
def optional_made() -> onnx.ModelProto:
    """A tensor becomes an optional, which goes out."""
    return text("g (float[2] x) => (optional(float[2]) y) { n = Neg(x) y = Optional(n) }")


@exotic()
def optional_of_a_sequence() -> onnx.ModelProto:
    """An optional sequence, opened and measured."""
    return text("""g (optional(seq(float[2])) o) => (int64 n) { s = OptionalGetElement(o) n = SequenceLength(s) }""")


@exotic()
def has_no_operand() -> onnx.ModelProto:
    """OptionalHasElement of opset 18 without an operand says no."""
    return text("g (float[2] x) => (bool b, float[2] y) { b = OptionalHasElement() y = Neg(x) }")


@exotic()
def zip_map() -> onnx.ModelProto:
    """A sequence of maps at the output, as scikit-learn's converters write."""
    return text(
        """g (float[N, 3] x) => (seq(map(int64, float)) y) {
            p = Softmax(x) y = ai.onnx.ml.ZipMap<classlabels_int64s = [4, 5, 6]>(p) }""",
        ai_onnx_ml=3,
    )


@exotic()
def zip_map_of_strings() -> onnx.ModelProto:
    """Maps from strings."""
    return text(
        """g (float[N, 3] x) => (seq(map(string, float)) y) {
            y = ai.onnx.ml.ZipMap<classlabels_strings = ["a", "b", "c"]>(x) }""",
        ai_onnx_ml=3,
    )


@exotic()
def dict_vectorizer() -> Made:
    """A map comes in."""
    model = text(
        """g (map(string, float) x) => (float[1, 3] y) {
            d = ai.onnx.ml.DictVectorizer<string_vocabulary = ["a", "zz", "b"]>(x) y = Neg(d) }""",
        ai_onnx_ml=3,
    )
    return Made(model, feeds={"x": {"a": 1.0, "b": 2.0}})


@exotic()
def cast_map() -> Made:
    """A map from numbers becomes a dense row."""
    model = text(
        """g (map(int64, float) x) => (float[1, K] y) {
            y = ai.onnx.ml.CastMap<cast_to = "TO_FLOAT", map_form = "SPARSE", max_map = 5>(x) }""",
        ai_onnx_ml=3,
    )
    return Made(model, feeds={"x": {0: 1.0, 3: 2.0}})


@exotic()
def string_constants() -> onnx.ModelProto:
    """Strings that are no ASCII, empty, or no UTF-8, as constants at the output."""
    strings = [each.encode() for each in ("a", "", "näïve ☃", "x" * 300)]
    tensor = TensorProto(name="s", data_type=TensorProto.STRING, dims=[4], string_data=strings)
    return built(
        [helper.make_node("Identity", ["s"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        [info("x", [2])],
        [info("y", [4], TensorProto.STRING), info("z", [2])],
        [tensor],
    )


@exotic()
def string_normalizer() -> Made:
    """Lower case, without stop words."""
    model = text(
        """g (string[N] x) => (string[M] y) {
            y = StringNormalizer<case_change_action = "LOWER", is_case_sensitive = 0, locale = "C",
                stopwords = ["the"]>(x) }"""
    )
    return Made(model, feeds={"x": np.array(["The", "Quick", "the", "FOX"], object)})


@exotic()
def tf_idf() -> Made:
    """Counts of pairs of words."""
    model = text(
        """g (string[N] x) => (float[3] y) {
            y = TfIdfVectorizer<max_gram_length = 2, max_skip_count = 1, min_gram_length = 1, mode = "TFIDF",
                ngram_counts = [0, 2], ngram_indexes = [0, 2, 1], pool_strings = ["a", "b", "b", "b"],
                weights = [0.5, 2.0, 1.5]>(x) }"""
    )
    return Made(model, feeds={"x": np.array(["a", "x", "b", "b"], object)})


@exotic()
def string_equal() -> Made:
    """Strings are compared with a constant and chosen by what comes out."""
    model = text(
        """g (string[N] x) => (bool[N] b, string[N] y) {
            c = Constant<value_string = "on">() d = Constant<value_strings = ["off"]>()
            b = Equal(x, c) y = Where(b, x, d) }"""
    )
    return Made(model, feeds={"x": np.array(["on", "x", ""], object)})


@exotic()
def string_concat_split() -> Made:
    """Strings are put together and taken apart."""
    model = text(
        """g (string[N] x) => (string[N, K] y, int64[N] n) {
            c = Constant<value_string = ",z">() t = StringConcat(x, c) y, n = StringSplit<delimiter = ",">(t) }"""
    )
    return Made(model, feeds={"x": np.array(["a,b", "c", ""], object)})


@exotic()
def regex() -> Made:
    """A regular expression with a group and a backslash."""
    model = text("g (string[N] x) => (bool[N] y) { y = RegexFullMatch(x) }")
    model.graph.node[0].attribute.append(helper.make_attribute("pattern", r"(\d+)\.[a-c]*"))
    return Made(model, feeds={"x": np.array(["12.ab", "x", "7."], object)})


@exotic()
def label_encoder() -> Made:
    """Strings to numbers and back, some unknown."""
    model = text(
        """g (string[N] x) => (string[N] y) {
            k = ai.onnx.ml.LabelEncoder<keys_strings = ["a", "b"], values_int64s = [7, -1], default_int64 = 0>(x)
            y = ai.onnx.ml.LabelEncoder<keys_int64s = [7, 0], values_strings = ["A", "?"],
                default_string = "B">(k) }""",
        ai_onnx_ml=3,
    )
    return Made(model, feeds={"x": np.array(["a", "b", "c"], object)})


@exotic()
def strings_reshaped() -> Made:
    """Strings are reshaped, gathered, joined and cast to numbers."""
    model = text(
        """g (string[4] x) => (string[2, 2] y, float[5] f) <int64[2] s = {2, 2}, int64[1] i = {-1}> {
            y = Reshape(x, s) g = Gather(x, i) c = Concat<axis = 0>(x, g) f = Cast<to = 1>(c) }"""
    )
    return Made(model, feeds={"x": np.array(["1", "2.5", "-3e2", "0"], object)})
