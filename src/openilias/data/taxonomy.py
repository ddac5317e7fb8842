"""The three-level taxonomy of objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json

UNASSIGNED = "other"
"""The name of a node that means "not assigned at this level"."""


@dataclass(frozen=True)
class Taxonomy:
    """Where each object belongs: object -> (coarse, mid, fine), with :data:`UNASSIGNED` kept as it is."""

    nodes: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def coarse(self, item: str) -> str | None:
        """Return the coarse category of an object, None if the taxonomy does not name it."""
        node = self.nodes.get(item)
        return None if node is None else node[0]

    def mid(self, item: str) -> str | None:
        """Return ``coarse/mid`` of an object (mid names recur under several coarse ones)."""
        node = self.nodes.get(item)
        return None if node is None else f"{node[0]}/{node[1]}"

    def counts(self) -> tuple[int, int, int]:
        """Return the number of (coarse, mid, fine) categories, without the unassigned."""
        named = [tuple(n[: depth + 1] for n in self.nodes.values() if n[depth] != UNASSIGNED) for depth in range(3)]
        return len(set(named[0])), len(set(named[1])), len(set(named[2]))


def read_taxonomy(path: Path) -> Taxonomy:
    """Read ``{coarse: {mid: {fine: [object, ...]}}}``.

    Raises:
        OpenIliasError: another shape, or an object that stands in two places.
    """
    nodes: dict[str, tuple[str, str, str]] = {}
    for coarse, mids in _children(read_json(path), path).items():
        for mid, fines in _children(mids, path).items():
            for fine, objects in _children(fines, path).items():
                if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
                    raise OpenIliasError(f"{coarse}/{mid}/{fine} must be a list of objects.", where=path)
                for name in objects:
                    if name in nodes:
                        raise OpenIliasError(f"The object {name} stands in two categories.", where=path)
                    nodes[name] = (coarse, mid, fine)
    return Taxonomy(nodes)


def _children(node: Any, path: Path) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise OpenIliasError("A taxonomy must be {coarse: {mid: {fine: [objects]}}}.", where=path)
    return node
