"""Writing and reading evaluations: ``queries.parquet`` and ``evaluation.json``."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, sha256_of
from openilias.core.ids import DATABASE_PARTITIONS
from openilias.core.manifests import State, claim, read_manifest, replacing, write_manifest
from openilias.core.protocol import OF_SEARCH, Compat, Protocol
from openilias.data import Benchmark
from openilias.evaluate.evaluation import ALGORITHM_VERSION, Evaluation, QueryResult, evaluate
from openilias.evaluate.groups import Group
from openilias.evaluate.official import read_official
from openilias.search.ranking import read_ranking

KIND = "evaluation"
MANIFEST, TABLE = "evaluation.json", "queries.parquet"
_GROUPS = ("categories", "mid_categories", "coverage", "clutter")
_PLAIN = ("map", "oracle", "uncategorised", "depth", "compat", "described")


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the aggregates of an evaluation as JSON values (the queries are in the Parquet file)."""
    return {
        **{name: getattr(evaluation, name) for name in _PLAIN},
        "queries": len(evaluation.queries),
        "missing": list(evaluation.missing),
        "unsearched": list(evaluation.unsearched),
        "protocol": evaluation.protocol.model_dump(
            mode="json", include=None if evaluation.described else set(OF_SEARCH)
        ),
        **{name: [asdict(group) for group in getattr(evaluation, name)] for name in _GROUPS},
    }


def protocol_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return the fields of the protocol that are known: of official features, those of the search."""
    known = None if evaluation.described else set(OF_SEARCH)
    return evaluation.protocol.model_dump(mode="json", include=known)


def write_evaluation(evaluation: Evaluation, folder: Path, *, made_from: dict[str, Any]) -> None:
    """Write the queries first, then ``evaluation.json`` as the sign that it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    queries = evaluation.queries
    table = pa.table(
        {
            "query_id": [q.query_id for q in queries],
            "object": [q.object for q in queries],
            "ap": pa.array([q.ap for q in queries], pa.float64()),
            "oracle": pa.array([q.oracle for q in queries], pa.float64()),
            "hits": pa.array([q.hits for q in queries], pa.int32()),
            "positives": pa.array([list(q.positives) for q in queries], pa.list_(pa.string())),
            "ranks": pa.array([list(q.ranks) for q in queries], pa.list_(pa.int32())),
            "answered": pa.array([q.answered for q in queries], pa.bool_()),
        }
    )
    with atomic_path(folder / TABLE) as temporary:
        pq.write_table(table, temporary)
    write_manifest(
        folder / MANIFEST,
        kind=KIND,
        made_from=made_from,
        sha256=sha256_of(folder / TABLE),
        result=as_json(evaluation),
    )


def read_evaluation(folder: Path) -> tuple[Evaluation, dict[str, Any]]:
    """Read an evaluation folder; return the evaluation and its manifest.

    Raises:
        OpenIliasError: it is not one, or not whole.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    path = folder / TABLE
    if not path.is_file() or sha256_of(path) != manifest.get("sha256"):
        raise OpenIliasError(
            "This file is missing, or not as it was written.", where=path, fix="Evaluate again with --overwrite."
        )
    try:
        result = manifest["result"]
        columns = pq.read_table(folder / TABLE).to_pylist()
        queries = tuple(
            QueryResult(
                row["query_id"],
                row["object"],
                row["ap"],
                row["oracle"],
                tuple(row["positives"]),
                tuple(row["ranks"]),
                row["answered"],
            )
            for row in columns
        )
        groups: dict[str, Any] = {name: tuple(Group(**group) for group in result[name]) for name in _GROUPS}
        evaluation = Evaluation(
            queries=queries,
            missing=tuple(result["missing"]),
            unsearched=tuple(result["unsearched"]),
            protocol=Protocol.model_validate(result["protocol"]),
            **{name: result[name] for name in _PLAIN},
            **groups,
        )
    except (OSError, KeyError, TypeError, pa.ArrowException, ValidationError) as error:
        raise OpenIliasError(f"This evaluation cannot be read: {error}.", where=folder, fix="Evaluate again.") from None
    if len(queries) != result["queries"]:
        raise OpenIliasError("queries.parquet and evaluation.json disagree.", where=folder, fix="Evaluate again.")
    return evaluation, manifest


def evaluate_to(
    source: Path,
    benchmark: Benchmark,
    out: Path | None,
    *,
    k: int | None = None,
    compat: Compat | None = None,
    allow_missing: bool = False,
    partial_database: bool = False,
    overwrite: bool = False,
) -> Evaluation:
    """Evaluate a ranking folder or an official result file, and write the evaluation folder.

    Args:
        source: a ranking folder, ``similarities.json`` or ``.pkl``.
        benchmark: what was searched.
        out: where to write; None writes nothing. Does nothing if it holds the evaluation of the same.
        k: cut; the k of the search by default, 1000 for official files.
        compat: how to evaluate; as the ranking's protocol says by default.
        allow_missing: count queries that are not answered as zero.
        partial_database: accept a search that left out shards of the benchmark; the result names them.
        overwrite: replace an evaluation of something else.

    Raises:
        OpenIliasError: as :func:`openilias.evaluate.evaluation.evaluate`; another benchmark; lists too short for k.
    """
    source = Path(source)
    ours = source.is_dir()
    if ours:
        ranking, manifest = read_ranking(source)
        protocol, described = _protocol_of(manifest, source)
        identity = str(manifest["fingerprint"])
        if manifest["made_from"].get("benchmark") not in (None, benchmark.fingerprint):
            raise OpenIliasError(
                "This ranking was made on another benchmark, or the benchmark has changed since.",
                where=source,
                fix="Give the benchmark that was searched, or search again.",
            )
    else:
        ranking = read_official(source)
        protocol, described, identity, manifest = Protocol(), False, sha256_of(source), {}
    trusted = manifest.get("made_from", {}).get("benchmark") is not None
    protocol = protocol.model_copy(update={"k": k or protocol.k})
    unsearched = _unsearched(manifest, benchmark) if ours else ()
    if unsearched and not partial_database:
        raise OpenIliasError(
            f"{len(unsearched)} parts of the benchmark were not searched: {first_few(list(unsearched))}.",
            where=source,
            fix="Search them too, or accept the easier task with --partial-database.",
        )
    depth, size = ranking.rows.shape[1], manifest.get("database_size")
    if isinstance(size, int) and depth < min(protocol.k, size):
        raise OpenIliasError(
            f"The lists hold {depth} of {size} images, too few for AP@{protocol.k}.",
            where=source,
            fix=f"Evaluate with -k {depth}, or search with -k {protocol.k}.",
        )
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "annotations": benchmark.annotations,
        "ranking": identity,
        "protocol": protocol.model_dump(mode="json"),
        "compat": compat or protocol.compat,
        "allow_missing": allow_missing,
        "unsearched": list(unsearched),
    }
    state: State = "new"
    if out is not None:
        state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=re.escape(TABLE))
        if state == "same":
            try:
                return read_evaluation(out)[0]
            except OpenIliasError:
                if not overwrite:
                    raise
    evaluation = evaluate(ranking, benchmark, protocol, compat=compat, allow_missing=allow_missing, trusted=trusted)
    evaluation = replace(evaluation, described=described, unsearched=unsearched)
    if out is not None:
        with replacing(out, state):
            write_evaluation(evaluation, out, made_from=made_from)
    return evaluation


def _unsearched(manifest: dict[str, Any], benchmark: Benchmark) -> tuple[str, ...]:
    """Return the shards of the database partitions of a benchmark that a search left out, and what lists of ids did.

    Of official features only ids are known: a tar counts as searched if one of its ids was; ``positives`` and
    ``distractors`` (files of a folder) if all were.
    """
    count, of = (int(manifest.get("left_out", {}).get(name, 0)) for name in ("images", "of"))
    by_ids = (f"{count:,} of {of:,} images, by lists of ids",) if count else ()
    return (*_shards_left_out(manifest, benchmark), *by_ids)


def _shards_left_out(manifest: dict[str, Any], benchmark: Benchmark) -> tuple[str, ...]:
    there = [shard for partition in DATABASE_PARTITIONS for shard in benchmark.shards(partition)]
    searched = set(manifest.get("sources", ()))
    if "searched" in manifest:
        counts: dict[str, int] = manifest["searched"]
        wanted: Counter[str] = Counter()
        for shard in there:
            wanted[shard.name if shard.tar else shard.partition] += len(shard.files) or 1
        wanted.update(dict.fromkeys(benchmark.absent, 1))
        if not benchmark.distractor_shards:  # only their list is here, and does not name its tars
            counts = {"distractors": sum(counts.values()) - counts.get("positives", 0)} | counts
        return tuple(name for name, count in wanted.items() if counts.get(name, 0) < count)
    return tuple(name for name in (*(shard.name for shard in there), *benchmark.absent) if name not in searched)


def _protocol_of(manifest: dict[str, Any], source: Path) -> tuple[Protocol, bool]:
    """Return the protocol of a ranking; and whether it is known, but for its k: official features do not state any."""
    try:
        made_from = manifest["made_from"]
        origin = made_from["origin"]
        described = "protocol" in origin  # official features, and ensembles of several protocols, state none
        stated = origin["protocol"] if described else {}
        asked = {name: made_from[name] for name in OF_SEARCH if name in made_from}
        return Protocol.model_validate(stated | asked | {"k": made_from["k"]}), described
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise OpenIliasError(f"This ranking does not state its protocol: {error}.", where=source) from None
