"""Matches of a re-ranked ranking, from the local stores that it was made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.progress import tell
from openilias.descriptors.local_store import open_local_store
from openilias.report.reranking import Match
from openilias.rerank.similarities import LocalStep, database_of_local
from openilias.rerank.spatial import verify


def match_of(manifest: dict[str, Any]) -> Callable[[str, str], Match] | None:
    """Return how a query and an image match, by their ids; None, told, if the local stores are gone.

    Args:
        manifest: of the re-ranked ranking. Whatever the method was, what agrees with one map is shown.
    """
    local = {
        name: value
        for name, value in manifest["made_from"]["rerank"]["local"].items()
        if name in LocalStep.model_fields
    }
    step = LocalStep.model_validate(local)
    try:
        queries, database = (
            [open_local_store(Path(folder)) for folder in manifest["local"][side]] for side in ("queries", "database")
        )
    except (OpenIliasError, KeyError) as error:
        tell(f"report: no matches are drawn, the local descriptors are not where they were ({error})")
        return None

    def match(query: str, item: str) -> Match:
        asked = database_of_local(queries, [query]).features(query, step.query_descriptors)
        known = database_of_local(database, [item]).features(item, step.descriptors)
        found = verify(asked, known, step.spatial)
        return Match(asked, known, found.pairs, found.tentative)

    return match
