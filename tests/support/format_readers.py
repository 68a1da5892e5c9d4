"""Readers of all of pymimic's files, written from docs/howto/formats.md with NumPy alone: neither pymimic nor safetensors is imported."""

import gzip
import hashlib
import io
import json
import math
from pathlib import Path

import numpy as np

LETTERS = {"F": "f", "I": "i", "U": "u"}


def safetensors(path):
    """(arrays by name, the metadata of the key "pymimic"), with the checksum compared."""
    content = Path(path).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = json.loads(header.pop("__metadata__")["pymimic"])
    arrays = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        dtype = f"<{LETTERS[entry['dtype'][0]]}{int(entry['dtype'][1:]) // 8}"
        arrays[name] = np.frombuffer(content[start:end], dtype).reshape(entry["shape"])
    if metadata["format"] >= 2:
        at = content.index(metadata["sha256"].encode())
        assert at < 8 + size
        zeros = content[:at] + b"0" * 64 + content[at + 64 :]
        assert hashlib.sha256(zeros).hexdigest() == metadata["sha256"]
    return arrays, metadata


def net(path):
    """(kind, configuration, weights by name as float32, mean and scale of the inputs or None)."""
    stored, metadata = safetensors(path)
    weights = {name: array for name, array in stored.items() if not name.endswith(".scale")}
    for name in [name for name in weights if f"{name}.scale" in stored]:
        integers = weights[name]
        if metadata["bits"] == 4:
            columns = columns_of(name, metadata["configuration"])
            halves = np.stack([integers & 15, integers >> 4], axis=2).reshape(len(integers), -1)[:, :columns]
            integers = np.where(halves < 8, halves.astype(np.int8), halves.astype(np.int8) - 16)
        weights[name] = integers.astype(np.float32) * stored[f"{name}.scale"][:, None]
    standards = metadata["input_standardisation"]
    if standards is not None:
        standards = [np.array(standards[name], np.float32) for name in ("mean", "scale")]
    return metadata["kind"], metadata["configuration"], weights, standards


def columns_of(name, student):
    """Of a student's matrices."""
    return {"V": student["inputs"], "U": student["rank"] or student["inputs"], "W": student["outputs"]}[name]


ACTIVATIONS = {
    "relu": lambda a: np.maximum(a, 0),
    "identity": lambda a: a,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "gelu": lambda a: a * (1 + np.vectorize(math.erf)(a / np.sqrt(2))) / 2,
}


def logits(path, x):
    """What a net's file says of rows x (B, D), in float64."""
    kind, how, weights, standards = net(path)
    h = np.asarray(x, np.float64)
    if standards is not None:
        h = (h - standards[0]) * standards[1]
    f = ACTIVATIONS[how["activation"]]
    if kind == "student":
        z = h @ weights["V"].T if how["rank"] else h
        return f(z @ weights["U"].T.astype(np.float64) + weights["b"]) @ weights["W"] + weights["c"]
    first = 0
    if kind == "convnet":
        first = len(how["convolutions"])
        h = h.reshape(len(h), *how["input_shape"])
        h = np.moveaxis(h, 1, -1)
        for i, (_, kernel, stride, padding) in enumerate(how["convolutions"]):
            h = f(convolved(h, weights[f"weight{i}"], weights[f"bias{i}"], kernel, stride, padding))
        h = h.reshape(len(h), -1)
    last = len(weights) // 2 - 1
    for i in range(first, last + 1):
        h = h @ weights[f"weight{i}"].T.astype(np.float64) + weights[f"bias{i}"]
        h = h if i == last else f(h)
    return h


def convolved(x, weight, bias, kernel, stride, padding):
    """Of inputs with their channels last, (B, *size, channels)."""
    x = np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    out = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], kernel, stride)]
    y = np.empty((len(x), *out, len(weight)))
    for place in np.ndindex(*out):
        window = x[(slice(None), *(slice(s * i, s * i + k) for i, s, k in zip(place, stride, kernel)))]
        y[(slice(None), *place)] = window.reshape(len(x), -1) @ weight.T.astype(np.float64) + bias
    return y


def checkpoint(path):
    """(arrays by group and name, metadata)."""
    arrays, metadata = safetensors(path)
    groups = {}
    for name, array in arrays.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = array
    return groups, metadata


def transfer_set(folder):
    """(inputs (N, D), logits (N, C), weights (N,) or None, the manifest): float32, with each file's checksum compared."""
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["format"] == 1
    assert manifest["complete"]
    storage = {
        "inputs": "float32",
        "logits": "float32",
        "low": 0.0,
        "high": 1.0,
        "top": 0,
        "compress": 0,
        **(manifest.get("storage") or {}),
    }
    parts = {"inputs": [], "logits": [], "weights": []}
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        if storage["compress"]:
            assert len(content) == file["size"]
            content = gzip.decompress(content)
        array = np.load(io.BytesIO(content))
        assert len(array) == file["rows"]
        parts[file["name"].partition("-")[0]].append(array)
    inputs, kept = np.concatenate(parts["inputs"]), np.concatenate(parts["logits"])
    if inputs.dtype == np.uint8:
        inputs = inputs.astype(np.float32) * np.float32(storage["high"] - storage["low"]) / np.float32(255) + np.float32(storage["low"])
    if storage["top"]:
        values, classes = kept["values"].astype(np.float32), kept["classes"].astype(np.int64)
        kept = np.repeat(values[:, -1:], manifest["outputs"], axis=1)
        np.put_along_axis(kept, classes, values[:, :-1], axis=1)
    weights = np.concatenate(parts["weights"]) if manifest["weighted"] else None
    return inputs.astype(np.float32), kept.astype(np.float32), weights, manifest
