"""A generated ILIAS: made-up things photographed in made-up scenes, in the layout of the official release."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.build.generated.designs import describe
from openilias.build.generated.pictures import (
    Distractor,
    Lesson,
    Object,
    SynthSettings,
    make_distractors,
    make_lesson,
    make_object,
)
from openilias.build.generated.words import object_names
from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import atomic_path, read_json, resumed_folder, sha256_of, write_bytes, write_json
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import claim, contents_of_folder, read_manifest, write_manifest
from openilias.core.progress import Step, progress
from openilias.core.threads import one_thread_per_worker
from openilias.data.training import LABELS, TRAIN, TrainingSet, write_training_set
from openilias.images.boxes import Box
from openilias.images.tars import write_tar

__all__ = ["SynthSettings", "build_synth"]

POSITIVES, DISTRACTORS = "synth_positives.parquet", "synth_distractors.parquet"
_ASKED = pa.schema(
    [("id", pa.string()), ("object", pa.string())]
    + [(name, pa.float64()) for name in ("viewpoint", "scale", "coverage", "occlusion", "illumination", "blur", "crop")]
    + [("clutter", pa.int32()), ("scene", pa.string())]
)
_HARD = pa.schema([("id", pa.string()), ("object", pa.string()), ("closeness", pa.float64()), ("differs", pa.string())])

KIND = "synthetic benchmark"
MANIFEST = "synth.json"
ALGORITHM_VERSION = 3  # changes when any picture, id or text of the same settings changes

_PER_JOB = 12  # distractors of one job: a multiple of those in a row that show the same thing
_MARKERS = ".shards"
_OURS = r"ilias_core|yfcc100m|image_ids|train|taxonomy\.json|checksums\.txt|synth_\w+\.parquet"
_NAMES = 0  # the second number of the seed of the names

T = TypeVar("T")
J = TypeVar("J")
Map = Callable[[Callable[[J], T], Iterable[J]], Iterator[T]]


def _box_line(box: Box) -> bytes:
    return f"{box.x} {box.y} {box.width} {box.height}\n".encode()


def _write_object(core: Path, name: str, made: Object) -> None:
    number = name[-3:]
    query, positives = core / name / "query", core / name / "pos"
    for folder in (query, positives):
        folder.mkdir(parents=True)
    (query / f"Q{number}_00.jpg").write_bytes(made.query)
    (query / f"Q{number}_00_bbox.txt").write_bytes(_box_line(made.query_box))
    (query / f"T{number}.txt").write_text(describe(made.design) + "\n", encoding="ascii")
    for index, positive in enumerate(made.positives):
        stem = f"P{number}_{index:02d}"
        (positives / f"{stem}.jpg").write_bytes(positive.jpeg)
        (positives / f"{stem}_bbox.txt").write_bytes(_box_line(positive.box))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _names(settings: SynthSettings) -> list[str]:
    return object_names(np.random.default_rng([settings.seed, _NAMES]), settings.objects)


def _write_core(folder: Path, settings: SynthSettings, run: Callable[..., Iterator[Any]], step: Step) -> None:
    """Write the objects with their query, text and positive lists, the taxonomy, and what each positive was asked."""
    queries, texts, positives = [], [], []
    taxonomy: dict[str, dict[str, dict[str, list[str]]]] = {}
    rows: list[dict[str, Any]] = []
    jobs: Iterator[Object] = run(partial(make_object, settings), range(settings.objects))
    for name, made in zip(_names(settings), jobs, strict=True):
        _write_object(folder / "ilias_core", name, made)
        queries.append(f"{name}/query/Q{name[-3:]}_00.jpg,{name}")
        texts.append(f"{name}/query/T{name[-3:]}.txt")
        for index, one in enumerate(made.positives):
            item = f"{name}/pos/P{name[-3:]}_{index:02d}.jpg"
            positives.append(f"{item},{one.coverage!r},{one.shot.clutter}")
            measured = {name: getattr(one, name) for name in ("viewpoint", "coverage", "occlusion", "crop")}
            rows.append({"id": item, "object": name, **asdict(one.shot), **measured, "scene": one.manner})
        kind = made.design.kind
        taxonomy.setdefault(kind.coarse, {}).setdefault(kind.mid, {}).setdefault(kind.fine, []).append(name)
        step(1 + len(made.positives))
    ids = folder / "image_ids"
    ids.mkdir()
    # Sorted by id; within a line the id ends at the comma, which sorts before every character of an id.
    _write_lines(ids / "image_query_ids.txt", sorted(queries))
    _write_lines(ids / "text_query_ids.txt", sorted(texts))
    _write_lines(ids / "positive_ids.txt", sorted(positives))
    write_json(folder / "taxonomy.json", taxonomy)
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["id"])), _ASKED)
    with atomic_path(folder / POSITIVES) as temporary:
        pq.write_table(table, temporary)


def _write_distractors(folder: Path, settings: SynthSettings, run: Callable[..., Iterator[Any]], step: Step) -> None:
    """Write the shards that are not there yet, the list of all images, checksums, and hard negatives."""
    total = settings.distractors
    shards = [range(start, min(start + settings.shard, total)) for start in range(0, total, settings.shard)]
    left = [number for number in range(len(shards)) if not _marker(folder, number).exists()]
    jobs = (
        range(start, min(start + _PER_JOB, shards[number].stop))
        for number in left
        for start in range(shards[number].start, shards[number].stop, _PER_JOB)
    )
    images: Iterator[Distractor] = (one for made in run(partial(make_distractors, settings), jobs) for one in made)
    names = _names(settings)
    for number in left:
        _write_shard(folder, number, shards[number], islice(images, len(shards[number])), names, step)
    markers = [read_json(_marker(folder, number)) for number in range(len(shards))]
    ids = (f"{_tar(n)}/d{index:07d}\n" for n, indices in enumerate(shards) for index in indices)
    # No time in the gzip header: the same lines are the same bytes.
    write_bytes(folder / "image_ids" / "distractor_ids.txt.gz", gzip.compress("".join(ids).encode(), mtime=0))
    _write_lines(folder / "checksums.txt", (f"{m['sha256']}  yfcc100m/{_tar(n)}" for n, m in enumerate(markers)))
    rows = [row for marker in markers for row in marker["rows"]]
    (folder / "yfcc100m").mkdir(exist_ok=True)
    with atomic_path(folder / DISTRACTORS) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, _HARD), temporary)


def _tar(number: int) -> str:
    return f"yfcc100m_{number:04d}.tar"


def _marker(folder: Path, number: int) -> Path:
    """Return what is written when a shard is finished; removed with the others when all is."""
    return folder / _MARKERS / f"{number:04d}.json"


def _begun(folder: Path) -> bool:
    return _marker(folder, 0).exists()


def _write_shard(
    folder: Path, number: int, indices: range, images: Iterator[Distractor], names: list[str], step: Step
) -> None:
    rows = []

    def members() -> Iterator[tuple[str, bytes]]:
        for index, one in zip(indices, images, strict=True):
            if one.object is not None:
                item = f"{_tar(number)}/d{index:07d}"
                differs = ", ".join(one.differs)
                rows.append({"id": item, "object": names[one.object], "closeness": one.closeness, "differs": differs})
            yield f"d{index:07d}.jpg", one.jpeg
            step()

    path = folder / "yfcc100m" / _tar(number)
    with atomic_path(path) as temporary:
        write_tar(temporary, members())
    write_json(_marker(folder, number), {"sha256": sha256_of(path), "rows": rows})


def _write_train(folder: Path, settings: SynthSettings, run: Callable[..., Iterator[Any]], step: Step) -> None:
    """Write the training split: a folder of pictures for each instance, and ``labels.parquet``."""
    if settings.train == 0:
        return
    rows = []
    jobs: Iterator[Lesson] = run(partial(make_lesson, settings), range(settings.train))
    for number, made in enumerate(jobs):
        label = f"instance_{number:06d}"
        (folder / TRAIN / label).mkdir(parents=True)
        for index, jpeg in enumerate(made.jpegs):
            item = f"{label}/{index:02d}.jpg"
            (folder / TRAIN / item).write_bytes(jpeg)
            rows.append((item, label, made.design.kind.coarse))
        step(len(made.jpegs))
    ids, labels, domains = zip(*rows, strict=True)
    write_training_set(TrainingSet(folder / TRAIN, ids, labels, domains), folder / TRAIN / LABELS)


def build_synth(out: Path, settings: SynthSettings, *, workers: int | None = None) -> None:
    """Generate a small benchmark in the official layout.

    The result depends on ``settings`` alone, not on ``workers``. An output of the same settings is kept; a killed
    run leaves a hidden folder beside ``out``, in which the next one goes on with the shards that are left.
    Beside the official files :data:`POSITIVES` has what was asked of each positive and measured on it (viewpoint,
    coverage, occlusion and crop are measured), and :data:`DISTRACTORS` one row per hard negative: its id, the
    object that it resembles, how closely, and the traits in which it differs. ``train/`` holds the training split,
    if there is one.
    With several workers processes are spawned: a script must call this under ``if __name__ == "__main__":``.

    Args:
        out: the folder to make.
        settings: what to generate.
        workers: processes, at least 1; None for one per CPU.

    Raises:
        OpenIliasError: ``out`` holds something else, or ``workers`` is below 1.
    """
    if workers is not None and workers < 1:
        raise OpenIliasError(f"There must be at least one worker, not {workers}.", fix="Give --workers 1 or more.")
    made_from = {**settings.model_dump(mode="json"), "algorithm_version": ALGORITHM_VERSION}
    if claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=False) == "same":
        if read_manifest(out / MANIFEST, kind=KIND).get("contents") != contents_of_folder(out, ours=_OURS):
            raise OpenIliasError(
                "Files of this benchmark are missing, added or changed.",
                where=out,
                fix="Find out which with ilias data verify, or remove it and make it again.",
            )
        return
    with (
        resumed_folder(out, fingerprint(made_from), begun=_begun) as folder,
        one_thread_per_worker(),
        ordered_map(workers or usable_cores()) as run,
        progress("Generating pictures", total=None, unit="pictures") as step,
    ):
        # The last file of a part says that it is whole; anything else is of a killed run.
        if not (folder / POSITIVES).exists():
            for name in ("ilias_core", "image_ids"):
                shutil.rmtree(folder / name, ignore_errors=True)
            _write_core(folder, settings, run, step)
        if not (folder / DISTRACTORS).exists():
            _write_distractors(folder, settings, run, step)
        if not (folder / TRAIN / LABELS).exists():
            shutil.rmtree(folder / TRAIN, ignore_errors=True)
            _write_train(folder, settings, run, step)
        shutil.rmtree(folder / _MARKERS, ignore_errors=True)
        contents = contents_of_folder(folder, ours=_OURS)
        write_manifest(folder / MANIFEST, kind=KIND, made_from=made_from, contents=contents)
