"""Writing and reading evaluations: ``queries.parquet`` and ``evaluation.json``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, sha256_of
from openilias.core.manifests import claim, read_manifest, write_manifest
from openilias.core.protocol import Compat, Protocol
from openilias.data import Benchmark
from openilias.evaluate.evaluation import ALGORITHM_VERSION, Evaluation, Group, QueryResult, evaluate
from openilias.evaluate.official import read_official
from openilias.search.ranking import read_ranking

KIND = "evaluation"
MANIFEST = "evaluation.json"
_GROUPS = ("categories", "mid_categories", "coverage", "clutter")
_PLAIN = ("map", "oracle", "uncategorised", "depth")


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the aggregates of an evaluation as JSON values (the queries are in the Parquet file)."""
    return {
        **{name: getattr(evaluation, name) for name in _PLAIN},
        "queries": len(evaluation.queries),
        "missing": list(evaluation.missing),
        "protocol": evaluation.protocol.model_dump(mode="json"),
        **{name: [asdict(group) for group in getattr(evaluation, name)] for name in _GROUPS},
    }


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
    with atomic_path(folder / "queries.parquet") as temporary:
        pq.write_table(table, temporary)
    write_manifest(folder / MANIFEST, kind=KIND, made_from=made_from, result=as_json(evaluation))


def read_evaluation(folder: Path) -> tuple[Evaluation, dict[str, Any]]:
    """Read an evaluation folder; return the evaluation and its manifest.

    Raises:
        OpenIliasError: it is not one, or not whole.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    try:
        result = manifest["result"]
        columns = pq.read_table(folder / "queries.parquet").to_pylist()
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
    overwrite: bool = False,
) -> Evaluation:
    """Evaluate a ranking folder or an official result file, and write the evaluation folder.

    Args:
        source: a ranking folder, ``similarities.json`` or ``.pkl``.
        benchmark: what was searched.
        out: where to write; None writes nothing. Does nothing if it holds the evaluation of the same.
        k: cut; the k of the search by default, 1000 for official files.
        compat: instead of the ranking's own.
        allow_missing: count queries that are not answered as zero.
        overwrite: replace an evaluation of something else.

    Raises:
        OpenIliasError: as :func:`openilias.evaluate.evaluation.evaluate`; another benchmark; lists too short for k.
    """
    source = Path(source)
    ours = source.is_dir()
    if ours:
        ranking, manifest = read_ranking(source)
        protocol = _protocol_of(manifest, source)
        identity = str(manifest["fingerprint"])
        if manifest["made_from"].get("benchmark") != benchmark.fingerprint:
            raise OpenIliasError(
                "This ranking was made on another benchmark, or the benchmark has changed since.",
                where=source,
                fix="Give the benchmark that was searched, or search again.",
            )
    else:
        ranking = read_official(source)
        protocol, identity, manifest = Protocol(), sha256_of(source), {}
    protocol = protocol.model_copy(update={"k": k or protocol.k, "compat": compat or protocol.compat})
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
        "allow_missing": allow_missing,
    }
    if out is not None and claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite) == "same":
        return read_evaluation(out)[0]
    evaluation = evaluate(ranking, benchmark, protocol, allow_missing=allow_missing, trusted=ours)
    if out is not None:
        write_evaluation(evaluation, out, made_from=made_from)
    return evaluation


def _protocol_of(manifest: dict[str, Any], source: Path) -> Protocol:
    try:
        made_from = manifest["made_from"]
        return Protocol.model_validate(made_from["origin"]["protocol"] | {"k": made_from["k"]})
    except (KeyError, TypeError, ValidationError) as error:
        raise OpenIliasError(f"This ranking does not state its protocol: {error}.", where=source) from None
