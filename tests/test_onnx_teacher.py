"""ONNX models as teachers: whatever their input wants, they answer as they do in ONNX Runtime, and what cannot teach is refused by name."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest

import pymimic as pm
from pymimic.onnx import export, exporter, packages, teacher

onnx = pytest.importorskip("onnx", packages.LEAST["onnx"])
runtime = pytest.importorskip("onnxruntime", packages.LEAST["onnxruntime"])
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

D, C = 12, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, D)).astype(np.float32)
MATRIX = RNG.normal(size=(D, C)).astype(np.float32)
FLOATS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}


def model(path, nodes, inputs, outputs, constants=()):
    """Write a model; inputs and outputs are (name, dtype, shape)."""
    ends = [[helper.make_tensor_value_info(*end) for end in each] for each in (inputs, outputs)]
    graph = helper.make_graph(nodes, "teacher", *ends, list(constants))
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), path)
    return path


def linear(path, shape=("N", D), dtype="float32", out=("N", C), activation="Identity"):
    """A model of rows of that shape, flattened, times MATRIX."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["rows"]), helper.make_node("MatMul", ["rows", "matrix"], ["a"]),
        helper.make_node(activation, ["a"], ["logits"]),
    ]  # fmt: skip
    matrix = numpy_helper.from_array(MATRIX.astype(dtype), "matrix")
    return model(path, nodes, [("image", FLOATS[dtype], shape)], [("logits", FLOATS[dtype], out)], [matrix])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.onnx"


# Inputs


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [("N", D), (None, None), (1, D), (8, D), ("N", 1, 3, 4), (5, 3, 4), ("N", 3, None), (37, 1, D)])
def test_rows_become_what_the_input_wants(path, shape, dtype):
    taught = teacher(linear(path, shape, dtype, (shape[0], C)), batch_size=16)
    tolerance = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-2}[dtype]
    assert taught.logits(X).dtype == np.float32
    assert np.allclose(taught.logits(X), X @ MATRIX, atol=tolerance)
    assert taught.logits(X[:0]).shape == (0, C)


def tokens(path, kind):
    """A model of integers (N, D), made floats and multiplied by MATRIX."""
    nodes = [helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT), helper.make_node("MatMul", ["floats", "matrix"], ["y"])]
    matrix = numpy_helper.from_array(MATRIX, "matrix")
    return model(path, nodes, [("x", kind, ["N", D])], [("y", TensorProto.FLOAT, ["N", C])], [matrix])


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64])
def test_inputs_of_integers_get_whole_numbers(path, kind):
    taught, x = teacher(tokens(path, kind)), RNG.integers(0, 256, (5, D))
    assert np.allclose(taught.logits(x.astype(np.float32)), x @ MATRIX, rtol=1e-5)
    assert np.array_equal(taught.logits(x), taught.logits(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("kind", "odd"), [(TensorProto.UINT8, 256), (TensorProto.UINT8, -1), (TensorProto.INT32, 0.5), (TensorProto.INT64, np.nan)]
)
def test_other_numbers_for_integers_are_refused(path, kind, odd):
    x = np.ones((5, D), np.float32)
    x[3, 2] = odd
    with pytest.raises(ValueError, match=rf"x: expected whole numbers that u?int\d+ holds, as 't.onnx' takes, got {np.float32(odd)}"):
        teacher(tokens(path, kind)).logits(x)


def test_an_input_of_unknown_shape_gets_rows(path):
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"])]
    taught = teacher(
        model(path, nodes, [("x", TensorProto.FLOAT, None)], [("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(MATRIX, "matrix")])
    )
    assert np.allclose(taught.logits(X), X @ MATRIX, atol=1e-5)


@pytest.mark.parametrize("shape", [("N", D), (8, D)])
def test_batches_are_no_larger_than_asked(path, shape, monkeypatch):
    taught, sizes = teacher(linear(path, shape, out=(shape[0], C)), batch_size=10), []
    run = taught._function.session

    class Counting:
        def run(self, outputs, inputs):
            sizes.append(len(inputs["image"]))
            return run.run(outputs, inputs)

    monkeypatch.setattr(taught._function, "session", Counting())
    taught.logits(X)
    assert sizes == ([10, 10, 10, 7] if shape[0] == "N" else [8] * 5)


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (X[0], ValueError, r"x: expected shape \(B, D\), got \(12,\)"),
        (X[:, :, None], ValueError, r"x: expected shape \(B, D\), got \(37, 12, 1\)"),
        (X.astype(str), TypeError, "x: expected rows of real numbers, got <U"),
        (X.astype(np.complex64), TypeError, "x: expected rows of real numbers, got complex64"),
        (None, TypeError, "x: expected a NumPy array, got builtins.NoneType"),
    ],
    ids=["row", "cube", "text", "complex", "none"],
)
def test_what_is_no_rows_is_refused(path, x, error, says):
    with pytest.raises(error, match=f"^{says}"):
        teacher(linear(path)).logits(x)


@pytest.mark.parametrize("give", [np.ndarray.tolist, np.asfortranarray, lambda x: x.astype(np.float64)], ids=["list", "columns", "float64"])
def test_rows_in_other_forms(path, give):
    taught = teacher(linear(path))
    assert np.array_equal(taught.logits(give(X)), taught.logits(X))


def test_rows_of_another_size_are_refused(path):
    taught = teacher(linear(path, ("N", 1, 3, 4)))
    with pytest.raises(ValueError, match=r"x: expected rows for an input of shape \(B, 1, 3, 4\), as 't.onnx' has, got rows of 6 values"):
        taught.logits(X[:, :6])
    with pytest.raises(ValueError, match=r"x: expected rows for an input of shape \(B, 3, any\), as 't.onnx' has, got rows of 10 values"):
        teacher(linear(path, ("N", 3, None))).logits(X[:, :10])
    with pytest.raises(ValueError, match=r"model: expected 't.onnx' to answer rows of shape \(37, 3, 2\), got "):
        teacher(linear(path, ("N", 3, None))).logits(X[:, :6])


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ([("x", TensorProto.STRING, ["N", D])], TypeError, r"model: expected an input of tensor\(float\), .*, got 'x' of tensor\(string\)"),
        ([("x", TensorProto.BOOL, ["N", D])], TypeError, r"model: expected an input of tensor\(float\), .*, got 'x' of tensor\(bool\)"),
        ([("x", TensorProto.FLOAT, ["N"])], ValueError, r"model: expected an input \(B, D\), .*, got 'x' of shape \['N'\]"),
        ([("x", TensorProto.FLOAT, ["N", "h", "w"])], ValueError, r"model: expected an input \(B, D\), .* open at most, got 'x'"),
        (
            [("x", TensorProto.FLOAT, ["N", D]), ("mask", TensorProto.FLOAT, ["N", D])],
            ValueError,
            "model: expected one with one input, got 2: x, mask",
        ),
    ],
)
def test_inputs_that_are_no_rows_are_refused(path, inputs, error, says):
    model(path, [helper.make_node("Identity", ["x"], ["y"])], inputs, [("y", inputs[0][1], None)])
    with pytest.raises(error, match=says):
        teacher(path)


# Outputs


def test_one_of_several_outputs_has_to_be_named(path):
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Neg", ["x"], ["less"])]
    model(path, nodes, [("x", TensorProto.FLOAT, ["N", D])], [(name, TensorProto.FLOAT, ["N", D]) for name in ("same", "less")])
    with pytest.raises(ValueError, match="output: expected the name of one, as the model has several: same, less, got None"):
        teacher(path)
    with pytest.raises(ValueError, match="output: expected one of same, less, got 'more'"):
        teacher(path, "more")
    assert np.array_equal(teacher(path, output="less").logits(X), -X)
    assert teacher(path, "less").describe() != teacher(path, "same").describe()


@pytest.mark.parametrize("axes", [[2], [0]])
def test_outputs_of_another_rank_are_refused(path, axes):
    node = helper.make_node("Unsqueeze", ["x", "axes"], ["y"])
    constants = [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    for known in (True, False):
        shape = ["N", D, 1] if axes == [2] else [1, "N", D]
        model(path, [node], [("x", TensorProto.FLOAT, ["N", D])], [("y", TensorProto.FLOAT, shape if known else None)], constants)
        with pytest.raises(ValueError, match=r"output: expected shape \(B, C\)"):
            teacher(path).logits(X)


def classifier(path, zipmap):
    """A linear classifier as skl2onnx writes it."""
    nodes = [
        helper.make_node(
            "LinearClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", coefficients=MATRIX.T.ravel(), intercepts=np.zeros(C),
            classlabels_ints=[0, 1, 2], multi_class=0, post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
        if zipmap else helper.make_node("Identity", ["p"], ["probabilities"]),
    ]  # fmt: skip
    label = ("label", TensorProto.INT64, ["N"])
    written = model(path, nodes, [("x", TensorProto.FLOAT, ["N", D])], [label, ("probabilities", TensorProto.FLOAT, ["N", C])])
    if zipmap:
        made = onnx.load(path)
        kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        made.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(kind))
        onnx.save(made, path)
    return written


def test_probabilities_become_logits_as_of_a_classifier(path):
    sklearn = pytest.importorskip("sklearn.linear_model")
    fitted = sklearn.LogisticRegression().fit(X, np.arange(len(X)) % C)
    fitted.coef_, fitted.intercept_ = MATRIX.T, np.zeros(C)
    taught = teacher(classifier(path, False), "probabilities", probabilities=True, floor=0.02)
    assert np.allclose(taught.logits(X), pm.from_sklearn(fitted, floor=0.02).logits(X), atol=1e-4)
    assert taught.describe()["floor"] == 0.02
    with pytest.raises(ValueError, match=r"probabilities: expected rows of probabilities with sum 1 from 't\.onnx', got values in"):
        teacher(linear(path), probabilities=True).logits(X)


def test_outputs_that_are_no_logits_are_refused(path):
    with pytest.raises(TypeError, match=r"output: expected one of tensor\(float\), .* got 'label' of tensor\(int64\)"):
        teacher(classifier(path, False), "label")
    with pytest.raises(TypeError, match=r"output: .* got 'probabilities' of seq\(map\(int64,tensor\(float\)\)\): .*'zipmap': False"):
        teacher(classifier(path, True), "probabilities")
    text = numpy_helper.from_array(np.array([b"a", b"b"], dtype=object), "names")
    nodes = [helper.make_node("Identity", ["names"], ["y"]), helper.make_node("Identity", ["x"], ["same"])]
    ends = [("y", TensorProto.STRING, [2]), ("same", TensorProto.FLOAT, ["N", D])]
    model(path, nodes, [("x", TensorProto.FLOAT, ["N", D])], ends, [text])
    with pytest.raises(TypeError, match=r"output: expected one of tensor\(float\), .* got 'y' of tensor\(string\)"):
        teacher(path, "y")


# Descriptions, files, sessions


def test_the_description_has_the_files_sha256(path):
    linear(path)
    described = teacher(path).describe()
    assert described == {"kind": "onnx", "output": "logits", "floor": None, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    shutil.copy(path, path.with_name("copy.onnx"))
    assert teacher(path.with_name("copy.onnx")).describe() == described
    linear(path, activation="Tanh")
    assert teacher(path).describe() != described


def test_the_description_knows_weights_in_other_files(path, monkeypatch):
    monkeypatch.setattr(exporter, "_MOST_BYTES", 0)
    net = pm.Student(D, 64, C)
    export(net, path)
    (data,) = path.parent.glob("*.data")
    taught = teacher(path)
    assert np.allclose(taught.logits(X), net.predict(X), atol=1e-5)
    changed = bytearray(data.read_bytes())
    changed[3] ^= 1
    data.write_bytes(changed)
    assert teacher(path).describe()["sha256"] != taught.describe()["sha256"]


def test_sessions_are_teachers(path):
    linear(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert teacher(session).describe() == teacher(path).describe()
    held = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert teacher(held).describe() == teacher(path).describe()
    assert np.array_equal(teacher(session).logits(X), teacher(path).logits(X))
    held._model_bytes = None
    with pytest.raises(ValueError, match="description: expected what tells this model from others"):
        teacher(held)
    assert teacher(held, description="net 7").describe()["name"] == "net 7"
    with pytest.raises(TypeError, match="model: expected the path of a file"):
        pickle.dumps(teacher(session))


def test_a_teacher_of_a_file_pickles(path):
    taught = teacher(linear(path))
    stored = pickle.dumps(taught)
    assert np.array_equal(pickle.loads(stored).logits(X), taught.logits(X))
    linear(path, activation="Tanh")
    with pytest.raises(ValueError, match="as it was when the teacher was pickled, got another model"):
        pickle.loads(stored)


def test_a_folder_knows_its_teacher(path, tmp_path):
    labelled = pm.TransferSet.create(tmp_path / "set", teacher(linear(path)), X, progress=False)
    assert np.allclose(labelled.batch(np.arange(5))[1], X[:5] @ MATRIX, atol=1e-5)
    with pytest.raises(pm.ManifestError, match="sha256"):
        pm.TransferSet.create(tmp_path / "set", teacher(linear(path, activation="Tanh")), X, progress=False)
    with pytest.raises(ValueError, match="logits: expected finite values"):
        pm.label(teacher(linear(path, activation="Log")), X)


def test_classes_are_compared(path):
    linear(path)
    assert teacher(path, classes=["a", "b", "c"]).classes == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"logits: expected shape \(37, 2\)"):
        teacher(path, classes=["a", "b"]).logits(X)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"model": 3}, TypeError, "model: expected a str or a pathlib.Path, got int"),
        ({"floor": 0}, ValueError, "floor: expected a number above 0, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an int"),
        ({"probabilities": "yes"}, TypeError, "probabilities: expected True or False, got str"),
        ({"description": 3}, TypeError, "description: expected a str or None, got int"),
        ({"output": ["logits"]}, ValueError, r"output: expected one of logits, got \['logits'\]"),
    ],
)
def test_wrong_arguments(path, given, error, says):
    with pytest.raises(error, match=says):
        teacher(**{"model": linear(path), **given})


def test_files_that_are_no_models(path):
    with pytest.raises(FileNotFoundError, match="model: No such file"):
        teacher(path)
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"model: expected an ONNX model that ONNX Runtime can run, got '.*t.onnx': "):
        teacher(path)
