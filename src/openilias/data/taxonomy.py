"""The three-level taxonomy of objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.core.findings import Finding, refuse

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


def find_taxonomy(path: Path) -> tuple[Taxonomy, tuple[Finding, ...]]:
    """Read ``{coarse: {mid: {fine: [object, ...]}}}``, gathering all that is wrong with it."""
    try:
        tree = read_json(path, object_pairs_hook=_pairs)
    except OpenIliasError as error:
        return Taxonomy(), (Finding("error", "taxonomy-unreadable", str(path), error.what),)
    findings: list[Finding] = []

    def wrong(kind: str, what: str) -> None:
        findings.append(Finding("error", kind, str(path), what))

    def children(node: Any, name: str) -> list[tuple[str, Any]]:
        if not isinstance(node, _Pairs) or not all(key.isprintable() for key, _ in node):
            at = f" At {name} it is not." if name else ""
            wrong("taxonomy-malformed", f"A taxonomy must be {{coarse: {{mid: {{fine: [objects]}}}}}}.{at}")
            return []
        counts = Counter(key for key, _ in node)
        for key in sorted(key for key, count in counts.items() if count > 1):
            wrong("taxonomy-duplicate", f"The category {name}{key} stands twice.")
        return node

    nodes: dict[str, tuple[str, str, str]] = {}
    for coarse, mids in children(tree, ""):
        for mid, fines in children(mids, f"{coarse}/"):
            for fine, objects in children(fines, f"{coarse}/{mid}/"):
                named = isinstance(objects, list) and not isinstance(objects, _Pairs)
                if not named or not all(isinstance(name, str) and name.isprintable() for name in objects):
                    wrong("taxonomy-malformed", f"{coarse}/{mid}/{fine} must be a list of objects.")
                    continue
                for name in objects:
                    if name in nodes:
                        wrong("taxonomy-duplicate", f"The object {name} stands in two categories.")
                    nodes[name] = (coarse, mid, fine)
    return Taxonomy(nodes), tuple(findings)


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, twice named ones included."""


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


def read_taxonomy(path: Path) -> Taxonomy:
    """Read ``{coarse: {mid: {fine: [object, ...]}}}``.

    Raises:
        OpenIliasError: another shape, or an object that stands in two places.
    """
    taxonomy, findings = find_taxonomy(path)
    refuse(findings)
    return taxonomy
