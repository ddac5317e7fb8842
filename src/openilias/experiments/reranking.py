"""Re-ranking of an experiment: describe the shortlists, pack the descriptors, compare, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.ids import Partition
from openilias.core.protocol import Compat
from openilias.data import Benchmark
from openilias.descriptors.extract import Options
from openilias.descriptors.extract_local import LocalOptions, extract_local
from openilias.descriptors.local_store import LocalStore, open_local_store
from openilias.experiments.clock import Clock
from openilias.experiments.rerank_step import RerankStep
from openilias.models.local_zoo import load_local
from openilias.rerank.itq import Binarisation, read_binarisation
from openilias.rerank.packing import ItqSettings, learn_itq_to, pack_store
from openilias.rerank.rerank import Reranked, rerank_to
from openilias.rerank.similarities import Comparer
from openilias.rerank.tuning import mix_of
from openilias.search.ranking import Ranking, read_ranking

QUERIES: Partition = "image_queries"


def rerank_run(
    step: RerankStep,
    benchmark: Benchmark,
    first: Path,
    partitions: Sequence[Partition],
    stores: Path,
    out: Path,
    work: Options,
    clock: Clock,
    *,
    compat: Compat,
    device: str,
    overwrite: bool,
) -> Reranked:
    """Re-rank the ranking of a run.

    Args:
        step: how; its method is not ``none``.
        benchmark: whose images are described.
        first: folder of the ranking by global descriptors.
        partitions: of the database.
        stores: folder of the local stores; those of one model and one shortlist lie together.
        out: folder of the new ranking.
        work: how images are described.
        clock: notes how long a step takes.
        compat: of the protocol.
        device: where networks compute.
        overwrite: replace what was made from something else.

    Raises:
        OpenIliasError: bad input of any step.
    """
    backbone = load_local(
        step.model,
        step.local_settings,
        weights=step.weights,
        detector=step.detector,
        random_weights=step.random_weights,
        device=device,
    )
    ranking, _ = read_ranking(first)
    listed = _listed(ranking, step.top or step.shortlist)
    about = {
        "benchmark": benchmark.fingerprint,
        "local": backbone.description(),
        "weights": backbone.weights_digest,
        "shortlist": fingerprint_lines(sorted(listed)),
        "compat": compat,
        "skip_unreadable": work.skip_unreadable,
    }
    folder = stores / "local" / f"{step.model.replace('/', '_').replace(':', '_')}-{fingerprint(about)[:8]}"

    def describe(partition: Partition) -> LocalStore:
        only = None if partition == QUERIES else listed
        options = LocalOptions(replace(work, batch_size=None), compat, only)
        return extract_local(benchmark, backbone, partition, folder / partition, options)

    def describe_all() -> tuple[LocalStore, list[LocalStore]]:
        return describe(QUERIES), [describe(partition) for partition in partitions]

    queries, database = clock.time("extract local", describe_all)
    by, bits = _comparison(step, device)

    def pack_all() -> tuple[LocalStore, list[LocalStore]]:
        made = bits or _learned(step, database, folder, overwrite=overwrite)
        if made is None:
            return queries, database
        packed = folder / f"packed-{made.digest[:8]}"

        def pack(store: LocalStore) -> LocalStore:
            pack_store(store, made, packed / store.folder.name, overwrite=overwrite)
            return open_local_store(packed / store.folder.name)

        return pack(queries), [pack(store) for store in database]

    queries, database = clock.time("pack", pack_all)
    mix = mix_of(
        step.mix, method=step.method, shortlist=step.shortlist, global_weight=step.global_weight, gamma=step.gamma
    )
    return clock.time(
        "rerank",
        lambda: rerank_to(
            first,
            [queries],
            database,
            step.local_step(),
            mix,
            out,
            by=by,
            overwrite=overwrite,
        ),
    )


def _listed(ranking: Ranking, top: int) -> frozenset[str]:
    short = ranking.cut(top)
    return frozenset(item for query in range(len(short.query_ids)) for item in short.ids_of(query))


def _comparison(step: RerankStep, device: str) -> tuple[Comparer | None, Binarisation | None]:
    """Return what compares by a network, and the bits that descriptors are packed to."""
    given = None if step.itq is None else read_binarisation(step.itq)[0]
    if step.method != "ames" or step.network is None:
        return None, given
    from openilias.rerank.ames_scores import open_ames

    by = open_ames(step.network, device, precision=step.precision)
    return by, by.bits


def _learned(step: RerankStep, database: Sequence[LocalStore], folder: Path, *, overwrite: bool) -> Binarisation | None:
    """Learn the bits from the descriptors of the database; None where numbers are compared."""
    if step.method == "ames" or step.bits is None:
        return None
    path = folder / f"itq-{step.bits}.safetensors"
    return learn_itq_to(database, ItqSettings(bits=step.bits), path, overwrite=overwrite)
