"""Models of ai.onnx.ml, as scikit-learn's converters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Made, Theme, array, built, info, text

exotic = Theme("classic")

_ML: dict[str, Any] = {"ai_onnx_ml": 3}
_TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 0, 1, 2],
    "nodes_featureids": [1, 0, 0, 2, 0, 0],
    "nodes_values": [0.25, 0.0, 0.0, -0.5, 0.0, 0.0],
    "nodes_hitrates": [1.0] * 6,
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
    "nodes_missing_value_tracks_true": [0, 0, 0, 1, 0, 0],
}


@exotic()
def forest_classifier() -> onnx.ModelProto:
    """Two trees, labels cast, probabilities as maps: a random forest of scikit-learn."""
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        name="TreeEnsembleClassifier",
        **_TREE,
        class_treeids=[0, 0, 1, 1],
        class_nodeids=[1, 2, 1, 2],
        class_ids=[0, 0, 0, 0],
        class_weights=[0.125, 0.375, 0.25, 0.0],
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )
    nodes = [
        trees,
        helper.make_node("Cast", ["label"], ["output_label"], to=TensorProto.INT64, name="Cast"),
        helper.make_node(
            "ZipMap", ["probabilities"], ["output_probability"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        ),
    ]
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    outputs = [
        info("output_label", [None], TensorProto.INT64),
        helper.make_value_info("output_probability", helper.make_sequence_type_proto(maps)),
    ]
    return built(nodes, [info("X", [None, 3])], outputs, opset=15, ir=8, **_ML)


@exotic()
def forest_regressor() -> onnx.ModelProto:
    """Trees whose mean is the result."""
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["variable"],
        domain="ai.onnx.ml",
        **_TREE,
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0, 0, 0, 0],
        target_weights=[1.0, 2.0, -3.0, 4.0],
        n_targets=1,
        aggregate_function="AVERAGE",
    )
    return built([trees], [info("X", ["N", 3])], [info("variable", ["N", 1])], opset=15, ir=8, **_ML)


@exotic()
def string_forest() -> onnx.ModelProto:
    """Trees over three classes that are strings, with softmax."""
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        **_TREE,
        class_treeids=[0, 0, 1, 1],
        class_nodeids=[1, 2, 1, 2],
        class_ids=[0, 1, 2, 0],
        class_weights=[0.5, 1.0, 2.0, -1.0],
        classlabels_strings=["setosa", "versi color", "virginicä"],
        post_transform="SOFTMAX",
    )
    outputs = [info("label", ["N"], TensorProto.STRING), info("scores", ["N", 3])]
    return built([trees], [info("X", ["N", 3])], outputs, opset=15, ir=8, **_ML)


@exotic()
def tree_ensemble_5() -> onnx.ModelProto:
    """The one operator for trees of ai.onnx.ml 5, whose attributes are tensors."""
    trees = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=2,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[0],
        nodes_featureids=[0],
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [1], [0]),
        nodes_splits=helper.make_tensor("splits", TensorProto.FLOAT, [1], [0.25]),
        nodes_truenodeids=[0],
        nodes_trueleafs=[1],
        nodes_falsenodeids=[1],
        nodes_falseleafs=[1],
        leaf_targetids=[0, 1],
        leaf_weights=helper.make_tensor("leaf_weights", TensorProto.FLOAT, [2], [5.23, 12.12]),
    )
    return built([trees], [info("X", ["N", 2])], [info("Y", ["N", 2])], opset=21, ai_onnx_ml=5)


@exotic()
def linear_classifier() -> onnx.ModelProto:
    """Logistic regression: scores, a normalizer, and maps."""
    return text(
        """g (float[N, 2] X) => (int64[N] label, seq(map(int64, float)) p) {
            label, scores = ai.onnx.ml.LinearClassifier<coefficients = [0.5, -1.0, -0.5, 1.0],
                intercepts = [0.25, -0.25], classlabels_ints = [3, 9], multi_class = 1, post_transform = "LOGISTIC">(X)
            normal = ai.onnx.ml.Normalizer<norm = "L1">(scores)
            p = ai.onnx.ml.ZipMap<classlabels_int64s = [3, 9]>(normal) }""",
        opset=15,
        ir=8,
        **_ML,
    )


@exotic()
def linear_regressor() -> onnx.ModelProto:
    """A scaler in front of a linear regression, and a reshape behind."""
    return text(
        """g (float[N, 2] X) => (float[M] y) <int64[1] shape = {-1}> {
            s = ai.onnx.ml.Scaler<offset = [0.5, -1.0], scale = [2.0, 0.25]>(X)
            r = ai.onnx.ml.LinearRegressor<coefficients = [1.5, -2.0], intercepts = [0.125], targets = 1>(s)
            y = Reshape(r, shape) }""",
        opset=15,
        ir=8,
        **_ML,
    )


@exotic()
def svm_classifier() -> onnx.ModelProto:
    """A support vector machine with a radial kernel."""
    return text(
        """g (float[N, 2] X) => (int64[N] label, float[N, K] scores) {
            label, scores = ai.onnx.ml.SVMClassifier<classlabels_ints = [0, 1], coefficients = [1.0, -1.0, -0.5, 0.5],
                kernel_params = [0.5, 0.0, 3.0], kernel_type = "RBF", post_transform = "NONE", rho = [0.125],
                support_vectors = [0.0, 1.0, 1.0, 0.0, 2.0, 2.0, -1.0, 0.5], vectors_per_class = [2, 2]>(X) }""",
        opset=15,
        ir=8,
        **_ML,
    )


@exotic()
def svm_regressor() -> onnx.ModelProto:
    """A support vector regression with a polynomial kernel."""
    return text(
        """g (float[N, 2] X) => (float[N, 1] y) {
            y = ai.onnx.ml.SVMRegressor<coefficients = [1.0, -1.0], kernel_params = [0.5, 1.0, 2.0],
                kernel_type = "POLY", n_supports = 2, rho = [0.5], support_vectors = [0.0, 1.0, 1.0, 0.0]>(X) }""",
        opset=15,
        ir=8,
        **_ML,
    )


@exotic()
def imputer() -> Made:
    """NaN is what is missing."""
    node = helper.make_node(
        "Imputer",
        ["X"],
        ["y"],
        domain="ai.onnx.ml",
        imputed_value_floats=[0.5, -1.0],
        replaced_value_float=float("nan"),
    )
    model = built([node], [info("X", ["N", 2])], [info("y", ["N", 2])], opset=15, ir=8, **_ML)
    return Made(model, feeds={"X": np.array([[np.nan, 1.0], [2.0, np.nan]], np.float32)})


@exotic()
def one_hot_pipeline() -> Made:
    """Strings to columns of zeros and ones beside scaled numbers, as a ColumnTransformer is written."""
    model = text(
        """g (string[N, 1] kind, float[N, 2] numbers) => (float[N, 5] y) <int64[2] flat = {-1, 3}> {
            h = ai.onnx.ml.OneHotEncoder<cats_strings = ["red", "green", "blue"], zeros = 1>(kind)
            r = Reshape(h, flat)
            s = ai.onnx.ml.Scaler<offset = [0.5, -1.0], scale = [2.0, 0.25]>(numbers)
            y = Concat<axis = 1>(r, s) }""",
        opset=15,
        ir=8,
        **_ML,
    )
    feeds = {"kind": np.array([["red"], ["nothing"]], object), "numbers": np.array([[1, 2], [3, 4]], np.float32)}
    return Made(model, feeds=feeds)


@exotic()
def feature_vectorizer() -> onnx.ModelProto:
    """Columns of several inputs side by side, then a threshold."""
    return text(
        """g (float[N, 1] a, float[N, 2] b) => (float[N, 3] y) {
            v = ai.onnx.ml.FeatureVectorizer<inputdimensions = [1, 2]>(a, b)
            y = ai.onnx.ml.Binarizer<threshold = 0.25>(v) }""",
        opset=15,
        ir=8,
        **_ML,
    )


@exotic()
def array_feature_extractor() -> onnx.ModelProto:
    """Columns chosen by an initializer, labels chosen by what is largest, as scikit-learn's converters do."""
    model = text(
        """g (float[N, 4] X) => (string[N] label) {
            c = ai.onnx.ml.ArrayFeatureExtractor(X, columns)
            m = ArgMax<axis = 1, keepdims = 0>(c)
            l = ai.onnx.ml.ArrayFeatureExtractor(classes, m)
            label = Reshape(l, shape) }""",
        opset=15,
        ir=8,
        **_ML,
    )
    classes = TensorProto(name="classes", data_type=TensorProto.STRING, dims=[2], string_data=[b"no", b"yes"])
    model.graph.initializer.extend([array("columns", [3, 0], np.int64), classes, array("shape", [-1], np.int64)])
    return model


@exotic()
def category_mapper() -> Made:
    """Strings to numbers by the operator of ai.onnx.ml 1."""
    model = text(
        """g (string[N] x) => (int64[N] y) {
            y = ai.onnx.ml.CategoryMapper<cats_strings = ["a", "b"], cats_int64s = [5, 6], default_int64 = -1>(x) }""",
        opset=9,
        ir=4,
        ai_onnx_ml=1,
    )
    return Made(model, feeds={"x": np.array(["b", "?", "a"], object)})


@exotic()
def nearest_neighbours() -> onnx.ModelProto:
    """Distances by Scan and a TopK, as scikit-learn's converters write them."""
    model = text(
        """g (float[N, 2] X) => (int64[N, 1] nearest) <int64[1] k = {1}, int64[1] axis = {1}> {
            u, distances = Scan<num_scan_inputs = 1, body = b (float[3, 2] next_in, float[2] next)
                => (float[3, 2] next_out, float[3] scan_out)
                { next_out = Identity(next_in) d = Sub(next_in, next) s = ReduceSumSquare<keepdims = 0>(d, axis)
                  scan_out = Identity(s) }>(train, X)
            v, nearest = TopK<largest = 0, sorted = 1>(distances, k) }""",
        opset=18,
        ir=8,
    )
    model.graph.initializer.append(array("train", [[0, 0], [1, 1], [-1, 2]]))
    return model
