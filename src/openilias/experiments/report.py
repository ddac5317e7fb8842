"""From a run folder to its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json
from openilias.core.progress import tell
from openilias.data import Benchmark, read_ilias
from openilias.evaluate.evaluation import Evaluation, evaluate
from openilias.evaluate.results import read_evaluation
from openilias.experiments.matching import match_of
from openilias.report.compression import CompressedSearch
from openilias.report.html import ReportInput, is_report, write_report
from openilias.report.reranking import RerankedSearch
from openilias.search.compressed import facts_of
from openilias.search.ranking import read_ranking

_SEARCHED = ("benchmark", "origin", "queries", "database", "k")


def report_run(run: Path, out: Path, *, benchmark: Path | None = None, gallery_queries: int = 24) -> Path:
    """Write the report of a run and return its page.

    Args:
        run: a folder with ``ranking`` and ``evaluation``; and with those of compressed searches, each in
            ``compressed/<name>``, if there are any.
        out: folder of the report; replaced if it is there.
        benchmark: where the pictures are; as ``run.json`` says by default.
        gallery_queries: how many queries are shown with pictures.

    Raises:
        OpenIliasError: the run is not complete, its parts do not belong together, or ``out`` is in the way.
    """
    ranking, ranking_manifest = read_ranking(run / "ranking")
    evaluation, evaluation_manifest = read_evaluation(run / "evaluation")
    if evaluation_manifest["made_from"].get("ranking") != ranking_manifest["fingerprint"]:
        raise OpenIliasError(
            "This evaluation is not of this ranking.",
            where=run,
            fix="Evaluate the ranking again with --overwrite.",
        )
    about: dict[str, Any] = read_json(run / "run.json") if (run / "run.json").exists() else {}
    if benchmark is None:
        if "benchmark" not in about:
            raise OpenIliasError("This run does not say where its benchmark is.", where=run, fix="Give --benchmark.")
        benchmark = Path(about["benchmark"])
    read = read_ilias(benchmark)
    # A search of official features does not know its benchmark; its evaluation does.
    searched = ranking_manifest["made_from"]["benchmark"] or evaluation_manifest["made_from"]["benchmark"]
    if read.fingerprint != searched:
        raise OpenIliasError(
            "The benchmark is not the one that was searched, or it has changed.",
            where=benchmark,
            fix="Run again.",
        )
    if out.exists() and not (out.is_dir() and (is_report(out) or not any(out.iterdir()))):
        raise OpenIliasError("The output folder exists and is not a report.", where=out, fix="Give another --out.")
    origin = ranking_manifest["made_from"]["origin"]
    record = origin.get("model", {"name": "unknown model"})
    model = {key: value for key, value in record.items() if value not in (None, {}, False)}
    weights_from = str(ranking_manifest.get("weights_from", ""))
    skipped = ranking_manifest.get("skipped", [])
    notes = [f"Skipped {entry['id']}: {entry['reason']}" for entry in skipped]
    if weights_from.startswith("random"):
        notes.insert(0, f"The weights are random ({weights_from}): the numbers say nothing about the model.")
    if "ensemble" in origin:
        together = ranking_manifest["made_from"]["ensemble"]
        notes.insert(0, f"An ensemble: {together['fusion']} with the weights {together['weights']}.")
        if not evaluation.described:
            notes.insert(1, "Its members were not described with one protocol: that of each stands in ranking.json.")
    elif not evaluation.described:
        notes.insert(0, f"The features were read from {origin.get('format')}: nothing says by which model, and how.")
    if evaluation.unsearched:
        left_out = first_few(list(evaluation.unsearched))
        notes.insert(0, f"{len(evaluation.unsearched)} parts of the benchmark were not searched: {left_out}.")
    compressed, others = _compressed(run, ranking_manifest, evaluation_manifest)
    if others:
        notes.append(f"Compressed searches of something else are not shown: {first_few(others)}.")
    return write_report(
        ReportInput(
            title=f"{model['name']} on {benchmark.name}",
            benchmark=read,
            ranking=ranking,
            evaluation=evaluation,
            model=model
            | {"dims": ranking_manifest.get("dims")}
            | ({"linear adaptation": origin["adaptation"]["sha256"][:16]} if "adaptation" in origin else {})
            | ({"weights": weights_from} if evaluation.described else {})
            | ({"weights digest": origin["weights"][:16]} if "weights" in origin else {}),
            database_size=ranking_manifest.get("database_size"),
            notes=tuple(notes),
            times=about.get("times", {}),
            compressed=tuple(compressed),
            reranked=_reranked(ranking_manifest, evaluation, read),
        ),
        out,
        gallery_queries=gallery_queries,
    )


def _reranked(manifest: dict[str, Any], evaluation: Evaluation, benchmark: Benchmark) -> RerankedSearch | None:
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


def _compressed(
    run: Path, ranking_manifest: dict[str, Any], evaluation_manifest: dict[str, Any]
) -> tuple[list[CompressedSearch], list[str]]:
    """Return the compressed searches of what the exact search searched, and the names of others."""
    found, others = [], []
    for folder in sorted((run / "compressed").glob("*")):
        if not (folder / "evaluation" / "evaluation.json").exists():  # indexes, or a search that was killed
            continue
        ranking, searched = read_ranking(folder / "ranking")
        evaluation, evaluated = read_evaluation(folder / "evaluation")
        same = all(searched["made_from"].get(key) == ranking_manifest["made_from"].get(key) for key in _SEARCHED)
        alike = evaluated["made_from"] | {"ranking": None} == evaluation_manifest["made_from"] | {"ranking": None}
        if same and alike and evaluated["made_from"].get("ranking") == searched["fingerprint"]:
            found.append(CompressedSearch(*facts_of(searched), ranking, evaluation))
        else:
            others.append(folder.name)
    return found, others
