"""Which descriptors can be compared: what made the stores of queries and those of the database, in common."""

from __future__ import annotations

from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import differences
from openilias.descriptors.official import FORMAT
from openilias.descriptors.store import DescriptorStore

_VIEWS = ("scales", "rotations", "combine")
_OF_A_PARTITION = ("query_boxes", "positive_boxes", *_VIEWS, "views")
"""Fields of the protocol in which partitions may differ: each store states those that concern its own."""
_ONE_VIEW = {"scales": [1.0], "rotations": [0], "combine": "mean"}


def common_origin(queries: list[DescriptorStore], database: list[DescriptorStore]) -> dict[str, Any]:
    """Return what made the stores, with the protocol put together of what concerns each partition.

    Raises:
        OpenIliasError: their descriptors cannot be compared; the first pair that differs is named, and in what.
    """
    stores = queries + database
    for other in stores[1:]:
        _check_alike(stores[0], other, _shared(stores[0]), _shared(other))
    origin = dict(stores[0].origin())
    if "protocol" not in origin:  # official files say nothing
        return origin
    asked = [store for store in queries if store.partition == "image_queries"]
    positives = [store for store in database if store.partition == "positives"]
    for group, fields in ((asked, ("query_boxes", *_VIEWS)), (positives, ("positive_boxes",)), (database, _VIEWS)):
        for other in group[1:]:
            _check_alike(group[0], other, _some(group[0], fields), _some(other, fields))
    of_database = _some(database[0], _VIEWS)
    of_queries = _some(asked[0], _VIEWS) if asked else of_database
    if of_queries != of_database and of_database != _ONE_VIEW:
        _check_alike(asked[0], database[0], of_queries, of_database)
    origin["protocol"] = origin["protocol"] | {
        "query_boxes": _some(asked[0], ("query_boxes",))["query_boxes"] if asked else "none",
        "positive_boxes": _some(positives[0], ("positive_boxes",))["positive_boxes"] if positives else "none",
        **of_queries,
        "views": "all" if of_queries == of_database else "queries",
    }
    return origin


def _shared(store: DescriptorStore) -> dict[str, Any]:
    """Return what all partitions have in common."""
    origin = dict(store.origin())
    if "protocol" in origin:
        origin["protocol"] = {name: v for name, v in origin["protocol"].items() if name not in _OF_A_PARTITION}
    return origin


def _some(store: DescriptorStore, fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: store.origin()["protocol"].get(name) for name in fields}


def _check_alike(first: DescriptorStore, other: DescriptorStore, one: dict[str, Any], two: dict[str, Any]) -> None:
    known = [store for store in (first, other) if store.origin().get("format") != FORMAT]
    if len(known) == 1:
        unknown = other if known[0] is first else first
        raise OpenIliasError(
            f"Nothing says what made {unknown.folder}: it cannot be searched together with {known[0].folder}.",
            where=unknown.folder,
            fix="Extract both with the same model. If you know that they were made alike, give up what is known: "
            f"ilias data convert {known[0].folder} --out FOLDER, and search the HDF5 files.",
        )
    changed = differences(one, two)
    if changed:
        raise OpenIliasError(
            f"{first.folder} and {other.folder} were not made alike:\n    " + "\n    ".join(changed[:12]),
            fix="Extract both with the same model, weights, protocol and benchmark.",
        )
