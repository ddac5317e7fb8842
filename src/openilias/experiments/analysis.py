"""From run folders to all that their report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.core.progress import progress
from openilias.data import Benchmark, read_ilias
from openilias.data.ilias import LISTS, MINI
from openilias.data.statistics import Statistics, measure
from openilias.evaluate.comparison import Aligned, align, compare
from openilias.evaluate.evaluation import Evaluation
from openilias.experiments.before import reranked_search
from openilias.experiments.experiment import Experiment
from openilias.experiments.results import Result
from openilias.experiments.study import study_of
from openilias.models.record import find_record
from openilias.published.printed import value_of
from openilias.report.figures.derive import Derived, Searched, derive
from openilias.report.figures.everything import Analysis
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured, Queries
from openilias.report.figures.sheets import Moved
from openilias.report.layout import Column, Table
from openilias.report.reranking import gained_most
from openilias.report.sweep import VALUES, Sweep, read_sweep
from openilias.search.ranking import read_ranking
from openilias.search.restriction import read_ids


@dataclass(frozen=True, eq=False)
class Run:
    """A run with what is known of it.

    Attributes:
        result: its evaluation.
        measured: as figures take it.
        ranking: folder of its ranking; None if there is none beside the evaluation.
        manifest: of the ranking; empty without.
        about: ``run.json``; empty without.
    """

    result: Result
    measured: Measured
    ranking: Path | None
    manifest: dict[str, Any]
    about: dict[str, Any]


def read_runs(results: Sequence[Result], benchmarks: dict[str, Benchmark]) -> list[Run]:
    """Add what runs say of themselves to their evaluations.

    Args:
        results: the evaluations.
        benchmarks: by fingerprint.
    """
    return [_run(result, benchmarks) for result in results]


def _run(result: Result, benchmarks: dict[str, Benchmark]) -> Run:
    about = result.about
    folder = result.folder if result.folder.name != "evaluation" else result.folder.parent
    ranking = folder / "ranking" if (folder / "ranking" / "ranking.json").exists() else None
    manifest = read_json(ranking / "ranking.json") if ranking is not None else {}
    same = manifest.get("fingerprint") == result.manifest["made_from"].get("ranking")
    if not same:
        ranking, manifest = None, {}
    origin = manifest.get("made_from", {}).get("origin", {})
    model = origin.get("model", {}).get("name", "unknown model") if "ensemble" not in origin else "ensemble"
    benchmark = benchmarks.get(result.benchmark or "")
    name = benchmark.root.resolve().name if benchmark is not None else "another benchmark"
    rerank = manifest.get("made_from", {}).get("rerank")
    evaluation = result.evaluation
    return Run(
        result,
        Measured(
            name=result.name,
            benchmark=name,
            evaluation=evaluation,
            record=find_record(model),
            model=model,
            dims=manifest.get("dims"),
            adapted="adaptation" in origin,
            reranked=None if rerank is None else rerank["local"]["method"],
            queries=_queries(result, benchmark),
            database_size=manifest.get("database_size"),
            resolution=evaluation.protocol.resolution if evaluation.described else None,
        ),
        ranking,
        manifest,
        about,
    )


def _queries(result: Result, benchmark: Benchmark | None) -> Queries:
    texts = set() if benchmark is None else set(benchmark.text_queries)
    kinds = {query.query_id in texts for query in result.evaluation.queries}
    return "both" if len(kinds) > 1 else "text" if kinds == {True} else "image"


def find_benchmarks(results: Sequence[Result], given: Path | None) -> dict[str, Benchmark]:
    """Read the benchmarks of runs, by fingerprint.

    Args:
        results: the evaluations; ``run.json`` says where their benchmark is.
        given: of runs that do not say, or that were moved.

    Raises:
        OpenIliasError: the benchmark of a run is not known, not there, or another one.
    """
    found: dict[str, Benchmark] = {}
    if given is not None:
        read = read_ilias(given)
        found[read.fingerprint] = read
    for result in results:
        wanted = result.benchmark
        if wanted in found:
            continue
        folder = result.about.get("benchmark")
        if folder is None:
            raise OpenIliasError(
                "This run does not say where its benchmark is.", where=result.folder, fix="Give --benchmark."
            )
        read = read_ilias(Path(folder))
        if read.fingerprint != wanted:
            raise OpenIliasError(
                f"The benchmark is not the one that was searched by '{result.name}', or it has changed.",
                where=folder,
                fix="Run again, or give --benchmark.",
            )
        found[read.fingerprint] = read
    return found


def searched_of(manifest: dict[str, Any]) -> Searched:
    """Return how many positives and distractors a ranking was searched in."""
    shards = manifest.get("database")
    left_out = manifest.get("left_out", {}).get("images", 0)
    if not isinstance(shards, list) or left_out:
        return Searched(None, None)
    rows = [(str(partition), int(count)) for partition, _, count in shards]
    positives = sum(count for partition, count in rows if partition == "positives")
    return Searched(positives, sum(count for _, count in rows) - positives)


def analyse(runs: Sequence[Run], benchmark: Benchmark, others: Sequence[Run] = (), *, seed: int = 0) -> Analysis:
    """Compute all that the figures of runs on one benchmark need; one ranking at a time is held.

    Args:
        runs: on this benchmark.
        benchmark: that they searched.
        others: runs on other benchmarks.
        seed: of intervals and subsets.
    """
    missing: list[str] = []
    derived: dict[str, Derived] = {}
    mini = benchmark.root / LISTS / MINI
    with progress("analyse", total=len(runs), unit="runs") as step:
        for run in runs:
            name = run.measured.name
            if run.ranking is None:
                missing.append(f"{name}: its ranking is not beside its evaluation.")
            else:
                ranking, manifest = read_ranking(run.ranking)
                chosen = read_ids(mini) if mini.exists() else None
                made = derive(
                    name,
                    ranking,
                    run.measured.evaluation,
                    benchmark,
                    searched_of(manifest),
                    seeds=(seed, seed + 1, seed + 2),
                    chosen=chosen,
                )
                derived[name] = replace(made, moved=_moved(manifest, run.measured.evaluation, benchmark))
                missing += made.why
            step()
    aligned = _aligned(runs, missing)
    pairs = [] if aligned is None else list(combinations(range(len(aligned.names)), 2))
    by_other: dict[str, tuple[Measured, ...]] = {}
    for run in others:
        by_other[run.measured.benchmark] = (*by_other.get(run.measured.benchmark, ()), run.measured)
    return Analysis(
        benchmark,
        tuple(run.measured for run in runs),
        derived,
        aligned,
        None if aligned is None else compare(aligned, pairs, seed=seed),
        _statistics(benchmark, missing),
        by_other,
        tuple(_sweeps(runs)),
        tuple(_studies(runs, missing)),
        tuple(missing),
    )


def _moved(manifest: dict[str, Any], after: Evaluation, benchmark: Benchmark) -> tuple[Moved, ...]:
    """Return the queries that gain most from re-ranking, if what was re-ranked is still there."""
    search = reranked_search(manifest, after, benchmark)
    return () if search is None else gained_most(search.before, after)


def _aligned(runs: Sequence[Run], missing: list[str]) -> Aligned | None:
    evaluations = {run.measured.name: run.measured.evaluation for run in runs}
    try:
        return align(evaluations)
    except OpenIliasError as error:
        missing.append(f"The runs are not compared query by query: {error.what}")
        return None


def _statistics(benchmark: Benchmark, missing: list[str]) -> Statistics | None:
    try:
        return measure(benchmark)
    except OpenIliasError as error:
        missing.append(f"The benchmark cannot be counted: {error.what}")
        return None


def _studies(runs: Sequence[Run], missing: list[str]) -> list[Exhibit]:
    """Return the tables that runs of a matrix make together, by the experiments that their folders hold."""
    groups: dict[str, list[tuple[Experiment, Run]]] = {}
    for run in runs:
        kept = run.about.get("experiment", {})
        if kept.get("table") is not None:
            try:
                groups.setdefault(kept["table"], []).append((Experiment.model_validate(kept), run))
            except ValidationError as error:
                missing.append(f"{run.measured.name}: its experiment cannot be read: {error.error_count()} errors.")
    found = []
    for kind, members in groups.items():
        evaluations = [run.measured.evaluation for _, run in members]
        try:
            study = study_of(
                [experiment for experiment, _ in members],
                [one.map for one in evaluations],
                [one.oracle for one in evaluations],
            )
        except OpenIliasError as error:
            missing.append(f"Table {kind}: {error.what}")
            continue
        if study is not None and len(members) > 1:
            columns = tuple(Column(name, name, None) for name in study.header)
            rows = tuple(tuple(value_of(cell) for cell in row) for row in study.rows)
            paper = f"Table {kind}" if len(kind) == 1 else {"dimensions": "Fig. G"}.get(kind, "")
            found.append(Exhibit(f"study-{kind.lower()}", paper, Table(f"{study.title}.", columns, rows)))
    return found


def _sweeps(runs: Sequence[Run]) -> list[tuple[str, Sweep]]:
    folders = {run.measured.name: run.result.folder / "sweep" for run in runs}
    return [(name, read_sweep(folder)) for name, folder in folders.items() if (folder / VALUES).is_file()]
