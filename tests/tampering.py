"""Functions that change files of a run, as an attacker may, and sign all stages again.

They do not run operations of TensorFlow; operations are added to the protocol buffer of a model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
from tensorflow.core.protobuf import saved_model_pb2

_ORDER = ("etl", "train", "evaluate", "export", "index", "recommend")


def resign(stage: Path) -> None:
    """Write the sizes and hashes of all files of a stage into its manifest, and update digests."""
    path = stage / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {
        str(file.relative_to(stage)): _fact(file)
        for file in sorted(stage.rglob("*"))
        if file.is_file() and file != path
    }
    path.write_text(json.dumps(manifest), encoding="utf-8")
    chain(stage.parent)


def chain(run: Path) -> None:
    """Update the digests of earlier stages in the manifests of all stages of a run."""
    digests: dict[str, str] = {}
    for name in _ORDER:
        path = run / name / "manifest.json"
        if not path.is_file():
            continue
        manifest = json.loads(path.read_bytes())
        manifest["inputs"] = {k: digests.get(k, v) for k, v in manifest["inputs"].items()}
        path.write_text(json.dumps(manifest), encoding="utf-8")
        digests[name] = _digest(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    files = {name: fact for name, fact in manifest["files"].items() if name != "times.json"}
    content = {"parts": manifest["parts_hash"], "inputs": manifest["inputs"], "files": files}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _fact(file: Path) -> dict[str, int | str]:
    if not file.resolve().is_file():  # a device has no end of file
        return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(b"").hexdigest()}
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def link_weights(weights: Path, secret: Path) -> None:
    """Add a link to another file to an HDF5 file of weights."""
    with h5py.File(weights, "a") as file:
        file["planted"] = h5py.ExternalLink(str(secret), "/secret")


def plant(tower: Path, op: str, text: bytes, *, at_load: bool = False) -> None:
    """Add an operation with two text inputs to every function of a SavedModel, or to its graph."""
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((tower / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    for nodes in [graph.node] if at_load else [f.node_def for f in graph.library.function]:
        for name in ("file", "text"):
            _constant(nodes.add(), f"planted_{name}", text)
        planted = nodes.add()
        planted.name, planted.op = "planted", op
        suffix = "" if at_load else ":output:0"
        planted.input.extend([f"planted_{name}{suffix}" for name in ("file", "text")])
    (tower / "saved_model.pb").write_bytes(model.SerializeToString())


def _constant(node: Any, name: str, text: bytes) -> None:
    node.name, node.op = name, "Const"
    node.attr["dtype"].type = 7  # DT_STRING
    node.attr["value"].tensor.dtype = 7
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(text)


def mutate(content: bytes, n: int, way: str) -> bytes:
    """Return damaged bytes.

    Args:
        content: content of a file.
        n: determines the place and the value of the damage.
        way: flip, cut, grow, zero, random, or huge (a 64-bit number of great size).
    """
    at = n * 7919 % max(1, len(content))
    if way == "cut":
        return content[:at]
    if way == "grow":
        return content + content[at:] + bytes(64)
    if way == "zero":
        return content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :]
    if way == "random":
        noise = hashlib.sha512(str(n).encode()).digest()
        return content[:at] + noise + content[at + len(noise) :]
    if way == "huge":
        at = at // 8 * 8 if n % 2 else n * 4 % 256
        return content[:at] + (2**62 >> n % 40).to_bytes(8, "little") + content[at + 8 :]
    changed = bytearray(content)
    changed[at] ^= 1 << n % 8
    return bytes(changed)
