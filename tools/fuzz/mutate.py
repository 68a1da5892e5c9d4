"""Mutators that know the formats: JSON is changed as JSON, tensors by shape, dtype and place, and sums are made to agree."""

from __future__ import annotations

import ast
import copy
import functools
import gzip
import hashlib
import io
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    -(2**63), -1, 0, 1, 2, 3, 7, 8, 32, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 10**400,
    -0.0, 0.5, 1.0, 1e-45, 1e38, 1e300, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
TEXTS = (
    "", "0", "nan", "../x", "/etc/hostname", "~", "a\0b", "\x1b[31mred\x07", "\ud800", "\u202e", "x" * 3000, "float32", "relu", "|O",
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [0] * 40)
FLOATS = tuple(struct.pack("<f", x) for x in (float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, -0.0))
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3", "F4", "")
DEEP = (b"[" * 3000, b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000, b'{"a":' * 200 + b"1" + b"}" * 200, b"1" * 5000)
DESCRIPTIONS = ("<f4", ">f4", "<f8", "<f2", "|O", "|u1", "|V0", "<U0", "<U9", "<M8[s]", [], [("a", "|O")], [("a", "<f4", (2**62,))], 3)
_LARGEST = 1 << 16  # bytes of a mutated file
_ZEROS = "0" * 64


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some flipped, taken out, put in, or doubled."""
    text = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(text) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1024))
        way = rng.randrange(7)
        if way == 0 and at < len(text):
            text[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            text[at : at + length] = rng.randbytes(length)
        elif way == 2:
            del text[at : at + length]
        elif way == 3:
            text[at:at] = text[at : at + length]
        elif way == 4:
            del text[at:]
        elif way == 5:
            text += rng.choice((b"\0", rng.randbytes(length), bytes(text[:length])))
        else:
            text[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS[:19]) % 2**64)
    return bytes(text[:_LARGEST])


def or_damaged(change: Mutator) -> Mutator:
    """The mutator, and `damaged` for what earlier changes have left in no form that it knows."""

    @functools.wraps(change)
    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.05:
            return damaged(data, rng)
        try:
            return change(data, rng)
        except Exception:
            return damaged(data, rng)

    return mutate


def changed(tree: Any, rng: random.Random) -> Any:
    """A JSON value with one or a few of its places changed."""
    box = {"": copy.deepcopy(tree)}
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(box))
        holder, key = rng.choice(places)
        other, name = rng.choice(places)
        way = rng.randrange(7)
        if way < 3:
            holder[key] = _another(holder[key], rng)
        elif way == 3:
            holder[key] = copy.deepcopy(other[name])
        elif way == 4 and holder is not box:
            del holder[key]
        elif way == 5 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(rng.choice((holder[key], *NUMBERS[:6], None))))
        elif isinstance(holder, dict) and holder is not box:
            holder[rng.choice((*TEXTS, *map(str, holder)))] = copy.deepcopy(rng.choice((holder[key], *NUMBERS, *OTHERS)))
    return box[""]


def _another(value: Any, rng: random.Random) -> Any:
    """Something in the place of a value; of a number, mostly a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice((*NUMBERS, *TEXTS, *OTHERS)))
    near = (value + 1, value - 1, -value, value * 2, str(value), [value])
    return rng.choice(near if rng.random() < 0.5 else NUMBERS)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from _places(tree[key])


def as_text(tree: Any, rng: random.Random) -> bytes:
    """JSON; now and then with nesting or numbers without end, or no longer JSON."""
    text, way = json.dumps(tree).encode(), rng.randrange(40)
    if way == 0:
        cut = text.find(b":", rng.randrange(len(text) + 1)) + 1
        return text[:cut] + rng.choice(DEEP) + (b"," if rng.random() < 0.5 else b"") + text[cut:]
    if way == 1:
        return rng.choice((*DEEP, b"-", b'"\\ud800"', b"\xff", b"1e999", b"null"))
    return damaged(text, rng) if way == 2 else text


@or_damaged
def as_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file."""
    return as_text(changed(json.loads(data), rng), rng)


@or_damaged
def safetensors(data: bytes, rng: random.Random) -> bytes:
    """A file of pymimic's: its metadata, its tensors' description and their values, mostly with a checksum that agrees."""
    start = 8 + int.from_bytes(data[:8], "little")
    header, blob = json.loads(data[8:start]), data[start:]
    metadata = json.loads(header.pop("__metadata__")["pymimic"])
    tensors = {name: [e["dtype"], e["shape"], blob[slice(*e["data_offsets"])]] for name, e in header.items()}
    way = rng.random()
    if way < 0.5:
        metadata = changed(metadata, rng)
    elif way < 0.9:
        for _ in range(rng.choice((1, 1, 2))):
            _change_tensor(tensors, rng)
    described, blob = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        described[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(values)]}
        blob += values
    return _file(metadata, changed(described, rng) if way >= 0.9 else described, blob[:_LARGEST], rng)


def _change_tensor(tensors: dict[str, Any], rng: random.Random) -> None:
    """Another shape, dtype, name or other values of one tensor, such that all fits again."""
    name = rng.choice(list(tensors))
    dtype, shape, values = tensors[name]
    way = rng.randrange(6)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[rng.choice((*TEXTS, f"{name}.scale", "optimizer.steps", "best.U", *tensors))] = tensors.pop(name)
    elif way == 2:
        tensors[f"{name.partition('.')[0]}.{rng.choice(('U', 'mean', 'steps', 'x'))}"] = list(tensors[name])
    elif way == 3 and len(values) >= 4:
        at = rng.randrange(len(values) // 4) * 4
        value = rng.choice((*FLOATS, rng.randbytes(4)))
        tensors[name][2] = value * (len(values) // 4) if rng.random() < 0.3 else values[:at] + value + values[at + 4 :]
    else:
        dtype = rng.choice(DTYPES) if way == 4 else dtype
        shapes = (shape, shape[::-1], shape[:-1], [*shape, 1], [1, *shape], [], [0], [1] * len(shape), [size + 1 for size in shape])
        shape = rng.choice(shapes)
        size = int("".join(filter(str.isdigit, dtype.partition("_")[0])) or 8) // 8
        for axis in shape:
            size *= axis
        if size < _LARGEST:
            tensors[name] = [dtype, shape, (values * (size // max(1, len(values)) + 1))[:size].ljust(size, b"\0")]


def _file(metadata: Any, described: Any, blob: bytes, rng: random.Random) -> bytes:
    """The file, with a sum that agrees where it has one."""
    forged = isinstance(metadata, dict) and isinstance(metadata.get("sha256"), str) and rng.random() < 0.95
    if forged:
        metadata["sha256"] = _ZEROS
    inner = as_text(metadata, rng).decode(errors="replace")
    text = as_text({"__metadata__": {"pymimic": inner}, **described}, rng)
    whole = len(text).to_bytes(8, "little") + text + blob
    return whole.replace(_ZEROS.encode(), hashlib.sha256(whole).hexdigest().encode(), 1) if forged else whole


@or_damaged
def npy(data: bytes, rng: random.Random) -> bytes:
    """A .npy file with another header, or other values."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header, values = ast.literal_eval(data[10:end].decode("latin1")), data[end:]
    way = rng.randrange(10)
    if way < 2:
        at = rng.randrange(len(values) // 4) * 4
        values = values[:at] + rng.choice(FLOATS) + values[at + 4 :]
    elif way < 5:
        header["shape"] = tuple(changed(list(header["shape"]), rng))[:40]
    elif way < 7:
        header["descr"] = rng.choice(DESCRIPTIONS)
    else:
        header = changed({key: list(v) if isinstance(v, tuple) else v for key, v in header.items()}, rng)
    text = repr(header)
    if way == 9:
        deep = ("(" * 300, "{'a': " * 100, "'" * 3, "[" * 9000, "1" * 5000, "", "-" * 3000 + "1")
        text = rng.choice((*deep, text + "#", text.replace("{", "{{", 1)))
    line = (text + "\n").encode("latin1", "replace")[:65000]
    version = rng.choice((1, 1, 1, 1, 1, 1, 2, 3, 4))
    return b"\x93NUMPY" + bytes((version, 0)) + len(line).to_bytes(2 if version == 1 else 4, "little") + line + values


def gz(change: Mutator) -> Mutator:
    """The mutator of what is packed in gzip's format, and now and then of the packing."""

    @or_damaged
    def mutate(data: bytes, rng: random.Random) -> bytes:
        way = rng.randrange(30)
        if way == 0:
            return gzip.compress(bytes(60 << 20), 9, mtime=0)
        if way == 1:
            return data + gzip.compress(bytes(rng.randrange(9)), 1, mtime=0)
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return gzip.compress(change(packed.read(_LARGEST), rng), 1, mtime=0)

    return mutate


def pack(files: dict[str, bytes]) -> bytes:
    """The files of a folder as one input."""
    names = json.dumps([[name, len(content)] for name, content in files.items()]).encode()
    return len(names).to_bytes(4, "little") + names + b"".join(files.values())


def unpack(data: bytes) -> dict[str, bytes]:
    """What `pack` was given."""
    at = 4 + int.from_bytes(data[:4], "little")
    files = {}
    for name, size in json.loads(data[4:at]):
        files[name] = data[at : at + size]
        at += size
    return files


def folder(data: bytes, rng: random.Random) -> bytes:
    """A transfer set's folder: its manifest or one of its files, mostly with sums and sizes that agree."""
    files = unpack(data)
    if not files:
        return data
    name = rng.choice([name for name in files if name.endswith(".json") or rng.random() < 0.2] or list(files))
    if rng.random() < 0.04:
        del files[name]
        return pack(files)
    files[name] = {"json": as_json, "gz": gz(npy)}.get(name.rpartition(".")[2], npy)(files[name], rng)
    if not name.endswith(".json") and rng.random() < 0.95:
        _vouch(files, name)
    return pack(files)


def _vouch(files: dict[str, bytes], name: str) -> None:
    """Let the manifest have the sum and the size of a file, if it has the file at all."""
    try:
        manifest = json.loads(files["manifest.json"])
        for entry in manifest["files"]:
            if entry["name"] == name:
                entry["sha256"] = hashlib.sha256(files[name]).hexdigest()
                entry.update({"size": len(files[name])} if "size" in entry else {})
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    files["manifest.json"] = json.dumps(manifest).encode()
