"""What a search looks for, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.adapt.linear import LinearMap
from openilias.core.protocol import Expand, Keep
from openilias.core.shards import Share
from openilias.search.restriction import Restriction

_ALL_IMAGES, _ALL_SHARDS = Restriction(), Share()


@dataclass(frozen=True)
class Choice:
    """What is searched, besides the stores; all of it changes the result.

    Attributes:
        linear: adapt descriptors with this map where they are not adapted yet.
        restriction: which images are searched.
        self_matches: whether an image that is the query itself is listed: of the same id, or the same descriptor.
            Stated, the queries may be a partition of the database. None: keep, and they may not.
        duplicates: whether images with the same descriptor are all listed, or only the first of them.
        expand: search a second time, with each query and the best that it found.
        share: search only every n-th shard; :func:`openilias.search.merge.merge_to` puts the parts together.
    """

    linear: LinearMap | None = None
    restriction: Restriction = _ALL_IMAGES
    self_matches: Keep | None = None
    duplicates: Keep = "keep"
    expand: Expand | None = None
    share: Share = _ALL_SHARDS

    def made_from(self) -> dict[str, Any]:
        """Return what a result depends on, as far as it is not the default; the adaptation is part of the origin."""
        stated: dict[str, Any] = {}
        if not self.restriction.everything:
            stated["ids"] = self.restriction.made_from()
        if self.self_matches is not None:
            stated["self_matches"] = self.self_matches
        if self.duplicates != "keep":
            stated["duplicates"] = self.duplicates
        if self.expand is not None:
            stated["expand"] = self.expand.model_dump(mode="json")
        if not self.share.everything:
            stated["share"] = f"{self.share.number}/{self.share.of}"
        return stated


@dataclass(frozen=True)
class Means:
    """What a search uses; none of it changes the result.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        threads: of the CPU; all by default.
        first_pass: precision of the first pass; what is fastest by default.
        trust: do not compare the shards with their checksums.
        first: of an expansion, a ranking of the same queries in the whole database, instead of a first search.
    """

    device: str = "cpu"
    threads: int | None = None
    first_pass: str | None = None
    trust: bool = False
    first: Path | None = None


EVERYTHING, DEFAULT_MEANS = Choice(), Means()
