"""From a run folder to its report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json
from openilias.data import Benchmark, read_ilias
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.results import read_evaluation
from openilias.experiments.analysis import analyse, find_benchmark, read_runs
from openilias.experiments.before import reranked_search
from openilias.experiments.results import read_results
from openilias.report.compression import CompressedSearch
from openilias.report.html import KIND, ReportInput, write_report
from openilias.report.output import check_output
from openilias.report.site import Choice, write_site
from openilias.report.site_data import SiteRun
from openilias.search.compressed import facts_of
from openilias.search.ranking import read_ranking

_CHOICE = Choice()
_SEARCHED = ("benchmark", "origin", "queries", "database", "k")


def report_run(run: Path, out: Path, *, benchmark: Path | None = None, gallery_queries: int = 24) -> Path:
    """Write the page of a run and return it.

    Args:
        run: a folder with ``ranking`` and ``evaluation``; and with those of compressed searches, each in
            ``compressed/<name>``, if there are any.
        out: folder of the page; replaced if it is there.
        benchmark: where the pictures are; as ``run.json`` says by default.
        gallery_queries: how many queries are shown with pictures.

    Raises:
        OpenIliasError: the run is not complete, its parts do not belong together, or ``out`` is in the way.
    """
    about: dict[str, Any] = read_json(run / "run.json") if (run / "run.json").exists() else {}
    if benchmark is None:
        if "benchmark" not in about:
            raise OpenIliasError("This run does not say where its benchmark is.", where=run, fix="Give --benchmark.")
        benchmark = Path(about["benchmark"])
    page = page_of(run, read_ilias(benchmark))
    check_output(out, KIND)
    return write_report(page, out, gallery_queries=gallery_queries)


def page_of(run: Path, benchmark: Benchmark) -> ReportInput:
    """Gather what the page of a run shows.

    Args:
        run: as for :func:`report_run`.
        benchmark: that it searched.

    Raises:
        OpenIliasError: the run is not complete, or its parts do not belong together.
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
    # A search of official features does not know its benchmark; its evaluation does.
    searched = ranking_manifest["made_from"]["benchmark"] or evaluation_manifest["made_from"]["benchmark"]
    if benchmark.fingerprint != searched:
        raise OpenIliasError(
            "The benchmark is not the one that was searched, or it has changed.",
            where=benchmark.root,
            fix="Run again.",
        )
    origin = ranking_manifest["made_from"]["origin"]
    record = origin.get("model", {"name": "unknown model"})
    model = {key: value for key, value in record.items() if value not in (None, {}, False)}
    weights_from = str(ranking_manifest.get("weights_from", ""))
    notes = _notes(evaluation, ranking_manifest)
    compressed, others = _compressed(run, ranking_manifest, evaluation_manifest)
    if others:
        notes.append(f"Compressed searches of something else are not shown: {first_few(others)}.")
    return ReportInput(
        title=f"{model['name']} on {benchmark.root.resolve().name}",
        benchmark=benchmark,
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
        reranked=reranked_search(ranking_manifest, evaluation, benchmark),
    )


def _notes(evaluation: Evaluation, manifest: dict[str, Any]) -> list[str]:
    """Say what a reader of the numbers must know.

    Args:
        evaluation: of the ranking.
        manifest: of the ranking; empty without one.
    """
    origin = manifest.get("made_from", {}).get("origin", {})
    weights_from = str(manifest.get("weights_from", ""))
    notes = [f"Skipped {entry['id']}: {entry['reason']}" for entry in manifest.get("skipped", [])]
    if weights_from.startswith("random"):
        notes.insert(0, f"The weights are random ({weights_from}): the numbers say nothing about the model.")
    if "ensemble" in origin:
        together = manifest["made_from"]["ensemble"]
        notes.insert(0, f"An ensemble: {together['fusion']} with the weights {together['weights']}.")
        if not evaluation.described:
            notes.insert(1, "Its members were not described with one protocol: that of each stands in ranking.json.")
    elif not evaluation.described:
        notes.insert(0, f"The features were read from {origin.get('format')}: nothing says by which model, and how.")
    if evaluation.unsearched:
        left_out = first_few(list(evaluation.unsearched))
        notes.insert(0, f"{len(evaluation.unsearched)} parts of the benchmark were not searched: {left_out}.")
    return notes


def report_site(
    runs: Sequence[str], out: Path, *, benchmark: Path | None = None, choice: Choice = _CHOICE, seed: int = 0
) -> Path:
    """Write the site of runs and return its first page.

    Args:
        runs: folders of runs or of evaluations, or ``NAME=FOLDER``. Those on another benchmark than the first are only
            set against it.
        out: folder of the site; a report that was there is replaced.
        benchmark: where the pictures are; as ``run.json`` says by default.
        choice: what is shown.
        seed: of intervals, tests and subsets.

    Raises:
        OpenIliasError: a run is not complete, its parts do not belong together, or ``out`` is in the way.
    """
    check_output(out, KIND)
    results = read_results(runs, across_benchmarks=True)
    read = find_benchmark(results, benchmark)
    found = read_runs(results, {read.fingerprint: read})
    own = [run for run in found if run.result.benchmark == results[0].benchmark]
    analysis = analyse(own, read, [run for run in found if run not in own], seed=seed)
    pages = []
    for run in own:
        make = None if run.ranking is None else partial(page_of, run.ranking.parent, read)
        pages.append(SiteRun(run.measured.name, make, tuple(_notes(run.measured.evaluation, run.manifest))))
    return write_site(analysis, pages, out, choice)


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
