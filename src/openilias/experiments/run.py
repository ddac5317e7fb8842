"""Running an experiment: every step is kept, and done again only if what it is made from has changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from openilias.adapt.apply import adapted
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import made_folder
from openilias.core.ids import DATABASE_PARTITIONS, Partition
from openilias.core.manifests import read_manifest, write_manifest
from openilias.data import Benchmark, read_ilias
from openilias.descriptors.extract import TIMEOUT, Options, Source, description_of, extract
from openilias.descriptors.store import DescriptorStore
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.results import evaluate_to
from openilias.experiments.clock import Clock
from openilias.experiments.experiment import Experiment
from openilias.experiments.learn import layer_of
from openilias.experiments.report import report_run
from openilias.experiments.reranking import rerank_run
from openilias.models.backbone import Backbone
from openilias.models.fit import fit
from openilias.models.zoo import TextFiles, find_model, load_model
from openilias.search.choice import Choice, Means
from openilias.search.compressed import search_compressed_to
from openilias.search.indexes import IndexSpec
from openilias.search.stores import search_to

KIND = "run"
FIRST = "first"
"""The folder of a re-ranked run that holds the ranking by global descriptors, and its evaluation."""
_QUERIES: dict[str, tuple[Partition, ...]] = {
    "image": ("image_queries",),
    "text": ("text_queries",),
    "both": ("image_queries", "text_queries"),
}


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it is, its evaluation, the page to open, and the seconds of each step."""

    folder: Path
    evaluation: Evaluation
    page: Path
    times: dict[str, float]


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes a number but ``retry``, which tries again what was passed over."""

    device: str = "cpu"
    batch_size: int | None = None
    workers: int | None = None
    timeout: float = TIMEOUT
    retry: bool = False


def run_experiment(experiment: Experiment, resources: Resources = Resources(), *, overwrite: bool = False) -> RunResult:
    """Fit (if asked), extract, search, evaluate and report.

    Raises:
        OpenIliasError: bad input of any step, or a run made from something else is in the way.
    """
    with made_folder(experiment.out):
        return _run(experiment, resources, overwrite=overwrite)


def _run(experiment: Experiment, resources: Resources, *, overwrite: bool) -> RunResult:
    folder = experiment.out
    clock = Clock(folder, overwrite=overwrite)
    benchmark = read_ilias(experiment.benchmark)
    if benchmark.absent and not experiment.partial_database:
        raise OpenIliasError(
            f"The benchmark lists distractors that are not here: {first_few(list(benchmark.absent))}.",
            where=benchmark.root,
            fix="Complete it, or accept the easier task with 'partial_database: true' in the experiment.",
        )
    backbone = _load(experiment, benchmark, resources, clock, overwrite=overwrite)
    partitions = [p for p in DATABASE_PARTITIONS if benchmark.shards(p)]

    stores = experiment.stores or folder

    work = Options(
        batch_size=resources.batch_size,
        workers=resources.workers,
        timeout=resources.timeout,
        skip_unreadable=experiment.skip_unreadable,
        retry=resources.retry,
        overwrite=overwrite,
    )

    def describe(partition: Partition, source: Source = benchmark) -> DescriptorStore:
        return clock.time(
            f"extract {partition}", lambda: extract(source, backbone, partition, stores / partition, work)
        )

    queries = [describe(partition) for partition in _QUERIES[experiment.queries]]
    database = [describe(partition) for partition in partitions]
    layer = None
    if experiment.adapt is not None:
        step, origin = experiment.adapt, description_of(benchmark, backbone)
        layer = clock.time(
            "adapt",
            lambda: layer_of(
                step,
                lambda training: describe("train", training),
                origin,
                folder / "adaptation",
                device=resources.device,
                overwrite=overwrite or resources.retry,  # a retry may have described more
            ),
        )
    if layer is not None:
        queries, database = ([adapted(store, layer) for store in group] for group in (queries, database))
    # What a retry has added is searched and evaluated anew.
    overwrite = overwrite or resources.retry
    protocol = experiment.protocol
    choice = Choice(
        self_matches="remove" if protocol.self_matches == "remove" else None,
        duplicates=protocol.duplicates,
        expand=protocol.expand,
    )
    means = Means(resources.device)
    rerank = experiment.reranks
    first = folder if rerank is None else folder / FIRST
    clock.time(
        "search",
        lambda: search_to(queries, database, experiment.depth, first / "ranking", choice, means, overwrite=overwrite),
    )

    def evaluated(part: Path) -> Evaluation:
        return evaluate_to(
            part / "ranking",
            benchmark,
            part / "evaluation",
            k=experiment.protocol.k,
            allow_missing=experiment.allow_missing,
            partial_database=experiment.partial_database,
            overwrite=overwrite,
        )

    if rerank is not None:
        clock.time("evaluate first", lambda: evaluated(first))
        rerank_run(
            rerank,
            benchmark,
            first / "ranking",
            partitions,
            stores,
            folder / "ranking",
            work,
            clock,
            compat=protocol.compat,
            device=resources.device,
            overwrite=overwrite,
        )
    evaluation = clock.time("evaluate", lambda: evaluated(folder))
    compressed = _compress(experiment, benchmark, queries, database, clock, overwrite=overwrite)
    steps: dict[str, str] = {
        **{str(store.partition): store.fingerprint for store in queries + database},
        **({} if rerank is None else {"first": _fingerprint(first)}),
        "ranking": _fingerprint(folder),
        "evaluation": read_manifest(folder / "evaluation" / "evaluation.json", kind="evaluation")["fingerprint"],
        **compressed,
    }
    write_manifest(
        folder / "run.json",
        kind=KIND,
        made_from=description_of(benchmark, backbone)
        | {"steps": steps}
        | ({} if layer is None else {"adaptation": layer.digest}),
        weights_from=backbone.weights_from,
        benchmark=str(experiment.benchmark.resolve()),
        experiment=experiment.model_dump(mode="json", exclude={"matrix", "variants"}, exclude_defaults=True),
        **({} if experiment.stores is None else {"stores": str(experiment.stores.resolve())}),
        skipped=[asdict(item) for store in queries + database for item in store.skipped],
        times=clock.times,
    )
    page = clock.time("report", lambda: report_run(folder, folder / "report"))
    return RunResult(folder, evaluation, page, clock.times)


def _fingerprint(folder: Path) -> str:
    return str(read_manifest(folder / "ranking" / "ranking.json", kind="ranking")["fingerprint"])


def _compress(
    experiment: Experiment,
    benchmark: Benchmark,
    queries: list[DescriptorStore],
    database: list[DescriptorStore],
    clock: Clock,
    *,
    overwrite: bool,
) -> dict[str, str]:
    """Search each compressed index and evaluate; return the fingerprints of the evaluations."""
    steps = {}
    for spec in (step.spec() for step in experiment.compress):
        folder = experiment.out / "compressed" / spec.name
        # Searches that differ only in parameters or rescoring share their index.
        index_file = folder.parent / "indexes" / f"{spec.index_name}.faiss"

        def work(spec: IndexSpec = spec, folder: Path = folder, index_file: Path = index_file) -> None:
            search_compressed_to(
                queries,
                database,
                experiment.depth,
                folder / "ranking",
                spec,
                index_file=index_file,
                overwrite=overwrite,
            )
            evaluate_to(
                folder / "ranking",
                benchmark,
                folder / "evaluation",
                k=experiment.protocol.k,
                allow_missing=experiment.allow_missing,
                partial_database=experiment.partial_database,
                overwrite=overwrite,
            )

        clock.time(f"compress {spec.name}", work)
        manifest = read_manifest(folder / "evaluation" / "evaluation.json", kind="evaluation")
        steps[f"compressed/{spec.name}"] = str(manifest["fingerprint"])
    return steps


def _load(
    experiment: Experiment, benchmark: Benchmark, resources: Resources, clock: Clock, *, overwrite: bool
) -> Backbone:
    spec = find_model(experiment.model)
    weights = experiment.weights
    if experiment.fit is not None and spec.library == "sift_vlad":
        step, weights = experiment.fit, experiment.out / "sift_vlad.safetensors"
        target = weights
        clock.time(
            "fit",
            lambda: fit(
                benchmark,
                step.partition,
                step.settings(),
                target,
                workers=resources.workers,
                overwrite=overwrite,
            ),
        )
    return clock.time(
        "load",
        lambda: load_model(
            spec,
            experiment.protocol,
            weights=weights,
            random_weights=experiment.random_weights,
            text=TextFiles(experiment.text_weights, experiment.tokenizer),
            device=resources.device,
        ),
    )
