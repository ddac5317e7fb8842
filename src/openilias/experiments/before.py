"""What a ranking was re-ranked from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.progress import tell
from openilias.data import Benchmark
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.experiments.matching import match_of
from openilias.report.reranking import RerankedSearch
from openilias.search.ranking import read_ranking


def reranked_search(manifest: dict[str, Any], evaluation: Evaluation, benchmark: Benchmark) -> RerankedSearch | None:
    """Return what was re-ranked, as far as it is still where it was."""
    made_from = manifest["made_from"].get("rerank")
    if made_from is None:
        return None
    source = Path(manifest["first"])
    try:
        first, before = read_ranking(source)
    except OpenIliasError:
        first, before = None, {}
    if first is None or before["fingerprint"] != made_from["first"]:
        tell(f"report: the ranking that was re-ranked is not in {source} any more: it is not compared with")
        return None
    local, mix = made_from["local"], made_from["mix"]
    together = f"{mix['global_weight']:g} · global + {1 - mix['global_weight']:g} · sigmoid({mix['gamma']:g} · local)"
    facts = {
        "shortlist": f"{mix['shortlist']:,}",
        "descriptors": f"{local['query_descriptors']} of a query, {local['descriptors']} of a database image",
        "similarity": together,
    }
    return RerankedSearch(
        local["method"],
        facts,
        evaluate(first, benchmark, evaluation.protocol, compat=evaluation.compat, allow_missing=True, trusted=True),
        match_of(manifest),
    )
