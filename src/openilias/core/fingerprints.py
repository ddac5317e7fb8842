"""Fingerprints: what a result was made from, and how two makings differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of ``value`` as canonical JSON.

    Equal values give equal fingerprints on every machine. Times, hosts, paths and library versions have no
    place in ``value``.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_lines(lines: Iterable[str]) -> str:
    """Return the fingerprint of a sequence of lines without holding them all."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def differences(old: Any, new: Any, *, name: str = "") -> list[str]:
    """List the leaves in which two JSON values differ, as ``name: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else str(key)
            found += differences(old.get(key), new.get(key), name=inner)
        return found
    if old == new:
        return []
    return [f"{name}: {json.dumps(old)} -> {json.dumps(new)}"]
