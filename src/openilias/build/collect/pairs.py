"""``pairs.csv``: pictures that may be the same, for a person to decide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from openilias.build.collect.csv_tables import read_table, table_bytes
from openilias.core.errors import OpenIliasError
from openilias.core.findings import Finding
from openilias.core.ids import is_distractor, object_of

PAIRS = "pairs.csv"
HEADER = ("first", "second", "by", "value", "kind", "status")
Kind = Literal["objects", "query", "distractor", "views"]
By = Literal["hash", "descriptor"]
Status = Literal["proposed", "confirmed", "rejected"]

_SAID: dict[Kind, tuple[str, str]] = {
    "objects": ("duplicate-objects", "An image of each of two objects looks the same"),
    "query": ("duplicate-query", "A query and a positive of its object look the same"),
    "distractor": ("duplicate-distractor", "A distractor looks like an image of the core"),
    "views": ("duplicate-views", "Two images of an object for the same use look the same"),
}


@dataclass(frozen=True)
class Pair:
    """Two images that may be the same.

    Attributes:
        first: id, of the core.
        second: id, of the core or a distractor.
        by: what was compared.
        value: bits in which the hashes differ, or inner product of the descriptors.
        kind: of two objects, query and positive of one, the core and a distractor, or two views for the same use.
        status: ``proposed``, and what a person makes of it: ``confirmed`` or ``rejected``, which is not the same.
    """

    first: str
    second: str
    by: By
    value: float
    kind: Kind
    status: Status = "proposed"


def pair_of(first: str, second: str, by: By, value: float) -> Pair:
    """Return a pair with its kind."""
    kind: Kind
    if is_distractor(second) and "/query/" not in second and "/pos/" not in second:
        kind = "distractor"
    elif object_of(first) != object_of(second):
        kind = "objects"
    else:
        kind = "views" if first.split("/")[1] == second.split("/")[1] else "query"
    return Pair(first, second, by, value, kind)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read the pairs and what a person made of them; none if there is no such file.

    Raises:
        OpenIliasError: it is no such table, a value or a status is none, or a pair is both confirmed and rejected.
    """
    found: list[Pair] = []
    decisions: dict[tuple[str, str], str] = {}
    statuses, means = {name: name for name in get_args(Status)}, {name: name for name in get_args(By)}
    for line in read_table(path, required=HEADER) if path.exists() else ():
        values = line.values
        status, by = statuses.get(values["status"].lower()), means.get(values["by"])
        try:
            value = float(values["value"])
        except ValueError:
            value = math.nan
        if status is None or by is None or not math.isfinite(value) or not (values["first"] and values["second"]):
            what = f"The status must be proposed, confirmed or rejected, not {values['status']!r}."
            what = what if status is None else "This is no pair of images."
            raise OpenIliasError(what, where=line.where, fix="Correct it.")
        pair = replace(pair_of(values["first"], values["second"], by, value), status=status)
        key = pair.first, pair.second
        if status != "proposed" and decisions.setdefault(key, status) != status:
            raise OpenIliasError("This pair is both confirmed and rejected.", where=line.where, fix="Correct it.")
        found.append(pair)
    return tuple(found)


def decided(pairs: Iterable[Pair], before: Iterable[Pair], core: set[str], *, by: set[By]) -> tuple[Pair, ...]:
    """Return pairs with what a person made of them, those that weigh most first.

    Args:
        pairs: that were found now.
        before: of the last time. What a person decided stays, and so does what was not looked for now.
        core: ids of the images of the core; pairs of others are gone.
        by: what was compared now.
    """
    found = {(pair.first, pair.second, pair.by): pair for pair in pairs}
    known = [one for one in before if one.first in core and (one.second in core or one.kind == "distractor")]
    decisions = {(one.first, one.second): one.status for one in known if one.status != "proposed"}
    for one in known:
        if one.status != "proposed" or one.by not in by:
            found.setdefault((one.first, one.second, one.by), one)
    order = list(get_args(Kind))
    judged = (replace(pair, status=decisions.get((pair.first, pair.second), "proposed")) for pair in found.values())
    return tuple(sorted(judged, key=lambda one: (order.index(one.kind), one.by, _far(one), one.first, one.second)))


def _far(pair: Pair) -> float:
    return pair.value if pair.by == "hash" else -pair.value


def pairs_bytes(pairs: Iterable[Pair]) -> bytes:
    """Return ``pairs.csv``."""
    return table_bytes(
        HEADER, ((one.first, one.second, one.by, f"{one.value:.6g}", one.kind, one.status) for one in pairs)
    )


def check_pairs(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Yield a warning for each pair that is not rejected; views of an object are a note."""
    counted = Counter((one.first, one.second) for one in pairs)
    for one in pairs:
        if one.status == "rejected" or (one.by == "descriptor" and counted[one.first, one.second] > 1):
            continue
        kind, what = _SAID[one.kind]
        how = f"{one.value:.0f} bits of 64 differ" if one.by == "hash" else f"similarity {one.value:.3f}"
        severity: Literal["warning", "note"] = "note" if one.kind == "views" else "warning"
        fix = f"Take one of them out, or write rejected into {PAIRS} if they are not the same."
        yield Finding(severity, kind, one.first, f"{what}: {one.second} ({how}).", fix)
