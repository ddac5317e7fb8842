"""Explaining rankings: of a search, expanded, of an ensemble, re-ranked; and the mix of a re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import read_manifest
from openilias.report.inspect_values import Explanation, IdCount, Look, look_at, model_facts, numbers, same_as
from openilias.report.tables import count
from openilias.rerank import tuning
from openilias.search import ranking as rankings


def explain_ranking(look: Look) -> Explanation:
    """Explain a ranking folder; one that is re-ranked with its local similarities.

    Raises:
        OpenIliasError: not whole, or not valid.
    """
    again: tuple[dict[str, Any], list[str]] = ({}, [])
    if "rerank" in read_manifest(look.path / rankings.MANIFEST, kind=rankings.KIND)["made_from"]:
        from openilias.rerank.rerank import read_reranked

        made = read_reranked(look.path)
        ranking, manifest = made.ranking, made.manifest
        again = _reranked(made.similarities, ranking, manifest, look)
    else:
        ranking, manifest = rankings.read_ranking(look.path)
    made_from = manifest["made_from"]
    lengths = ranking.lengths
    scores = ranking.scores[ranking.rows != rankings.ABSENT]
    with np.errstate(invalid="ignore"):
        ties = (ranking.scores[:, 1:] == ranking.scores[:, :-1]) & (ranking.rows[:, 1:] != rankings.ABSENT)
    ids = IdCount()
    ids.add(ranking.db_ids)
    facts = {
        "queries": len(ranking.query_ids),
        "images_of_a_list": numbers(lengths),
        "database_size": manifest.get("database_size"),
        "different_images": dict(ids.shapes),
        "scores": numbers(scores),
        "ties": int(ties.sum()),
        **same_as({"k": "k"}, made_from),
        **again[0],
        **_put_together(manifest),
        **model_facts(made_from),
        "fingerprint": manifest.get("fingerprint"),
    }
    kind = "ranking"
    if "ensemble" in made_from:
        kind += " of an ensemble"
    if "expand" in made_from:
        kind += " of expanded queries"
    summary = f"{count(len(ranking.query_ids), 'query')}, up to {count(ranking.rows.shape[1], 'image')} each"
    if again[0]:
        kind = f"re-ranked {kind}"
        summary += f", the first {again[0]['mix']['shortlist']:,} by {again[0]['reranked_by']}"
    return Explanation(kind, summary, facts, tuple(again[1]))


def _put_together(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of an ensemble, and of the expansion of queries."""
    made_from = manifest["made_from"]
    facts = same_as({"expanded_by": "expand"}, made_from)
    ensemble = made_from.get("ensemble")
    if isinstance(ensemble, dict):
        facts |= {"ensemble": {name: ensemble.get(name) for name in ("fusion", "weights")}}
        facts |= {"members": manifest.get("members", ensemble.get("members")), "certain": manifest.get("certain")}
    return facts


def _reranked(
    local: np.ndarray, ranking: rankings.Ranking, manifest: Mapping[str, Any], look: Look
) -> tuple[dict[str, Any], list[str]]:
    """Return facts and warnings of a re-ranking; ``local`` are its similarities (Q, M)."""
    rerank = manifest["made_from"]["rerank"]
    try:
        step, mix = dict(rerank["local"]), dict(rerank["mix"])
        facts = {
            "reranked_by": step.pop("method"),
            "mix": mix,
            "compared": {name: step[name] for name in ("shortlist", "descriptors", "query_descriptors")},
            "spatial": step.get("spatial"),
            "network": rerank.get("network"),
            "local_queries": rerank["local_queries"],
            "local_database": rerank["local_database"],
            "local_similarities": numbers(local[~np.isnan(local)]),
            "compared_pairs": int((~np.isnan(local)).sum()),
            "first_ranking": manifest["first"],
        }
        first, known = Path(manifest["first"]), str(rerank["first"])
        mix["shortlist"] = int(mix["shortlist"])
    except (KeyError, TypeError, ValueError):
        raise look.refuse("The manifest of this ranking is damaged.", fix="Re-rank again with --overwrite.") from None
    warnings = []
    wanted = np.arange(local.shape[1]) < ranking.lengths[:, None] if local.ndim == 2 else np.zeros(0, bool)
    if wanted.shape != local.shape or (wanted == np.isnan(local)).any():
        warnings.append("The local similarities do not fit the lists: re-rank again.")
    try:
        there = read_manifest(first / rankings.MANIFEST, kind=rankings.KIND).get("fingerprint")
    except OpenIliasError:
        warnings.append("The ranking that was re-ranked is not where it was; ilias tune asks for it.")
    else:
        if there != known:
            warnings.append(f"The ranking that was re-ranked ({known}) was replaced by another ({there}).")
    return facts, warnings


def is_local_similarities(look: Look) -> bool:
    """Tell the local similarities of a re-ranked ranking by their place."""
    if look.ending != ".npy" or not (look.path.parent / rankings.MANIFEST).is_file():
        return False
    from openilias.rerank.rerank import SIMILARITIES

    return look.path.name == SIMILARITIES


def explain_local_similarities(look: Look) -> Explanation:
    """Explain the ranking that local similarities belong to; they are compared with their digest."""
    return explain_ranking(look_at(look.path.parent))


def explain_mix(look: Look) -> Explanation:
    """Explain a mix of global and local similarity.

    Raises:
        OpenIliasError: it is damaged.
    """
    mix, manifest = tuning.read_mix(look.path), read_manifest(look.path, kind=tuning.KIND)
    made_from = manifest["made_from"]
    local = _mapping(made_from.get("local"))
    step = _mapping(local.get("local"))
    tried = {name: made_from[name] for name in ("weights", "gammas", "shortlists") if _is_grid(made_from.get(name))}
    reached, k = manifest.get("map"), made_from.get("k")
    facts = {
        **mix.model_dump(mode="json"),
        f"mAP@{k}": reached,
        "tuned_for": step.get("method"),
        "compared": {name: step.get(name) for name in ("shortlist", "descriptors", "query_descriptors")},
        "network": local.get("network"),
        "tried": {name: f"{len(values)} from {min(values):g} to {max(values):g}" for name, values in tried.items()},
        **same_as({"first_ranking": "first", "local_database": "local_database"}, local),
        **same_as({"benchmark": "benchmark"}, made_from),
        "fingerprint": manifest.get("fingerprint"),
    }
    warnings = []
    for name, value, most in (("weights", mix.global_weight, 1.0), ("gammas", mix.gamma, np.inf)):
        values = tried.get(name, [])
        if len(set(values)) > 1 and value in (min(values), max(values)) and 0 < value < most:
            end = "least" if value == min(values) else "largest"
            warnings.append(f"The best of the {name} is the {end} one that was tried: try others too.")
    if mix.global_weight in (0, 1):
        warnings.append(f"The {'local' if mix.global_weight else 'global'} similarity does not count.")
    formula = f"{mix.global_weight:g} * global + {1 - mix.global_weight:g} * sigmoid({mix.gamma:g} * local)"
    summary = f"{formula}, of the first {mix.shortlist:,}"
    if isinstance(reached, float):
        summary += f"; mAP@{k} {100 * reached:.2f}"
    return Explanation("mix of similarities", summary, facts, tuple(warnings))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_grid(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, (int, float)) for value in values)
