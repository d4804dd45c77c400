"""What an attacker does who can write a run: change a file, and sign it and later stages again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_ORDER = ("etl", "train", "export", "index", "recommend")


def resign(stage: Path) -> None:
    """Write sizes and hashes of all files of a stage into its manifest, and all digests anew."""
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
    """Let each stage name the earlier ones as they are now."""
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
    if not file.resolve().is_file():  # a device has no end
        return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(b"").hexdigest()}
    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def mutate(content: bytes, n: int, way: str) -> bytes:
    """Return damaged bytes.

    Args:
        content: of a file.
        n: says where, and with what.
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
