"""Fitting ``sift_vlad`` on a partition of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition
from openilias.core.memory import memory_kept
from openilias.core.progress import progress
from openilias.core.threads import one_thread_per_worker
from openilias.data import Benchmark, Item
from openilias.images.decode import decode
from openilias.models.backbone import Floats
from openilias.models.sift_vlad import (
    SiftVlad,
    SiftVladSettings,
    grey_picture,
    learn_words,
    load_sift_vlad,
    root_sift,
    save_sift_vlad,
    vlad_of,
)
from openilias.models.whitening import fit_whitening

ALGORITHM_VERSION = 1
_MOST_SHARDS = 64


def fit(
    benchmark: Benchmark,
    partition: Partition,
    settings: SiftVladSettings,
    out: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> SiftVlad:
    """Fit ``sift_vlad`` and write it to one file; does nothing if the file was fitted on the same.

    Args:
        benchmark: where the images are.
        partition: which of them; ``distractors`` looks at no query and no positive.
        settings: of the fit.
        out: the file to write.
        workers: threads; all cores by default.
        overwrite: replace a file fitted on something else.

    Raises:
        OpenIliasError: no or too few images, or ``out`` is in the way.
    """
    fitted_on = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "partition": partition,
        "settings": settings.model_dump(mode="json"),
    }
    if out.is_dir():
        raise OpenIliasError("The output is a folder.", where=out, fix="Give the name of a file as --out.")
    if out.exists() and not overwrite:
        model, before = load_sift_vlad(out)
        if before == fitted_on:
            return model
        raise OpenIliasError(
            "This file was fitted on something else.", where=out, fix="Give another --out, or --overwrite."
        )
    if partition == "text_queries":
        raise OpenIliasError("sift_vlad is fitted on images, not on texts.", fix="Choose another --partition.")
    items = draw_items(benchmark, partition, settings.images, seed=settings.seed)
    if len(items) < 3:
        raise OpenIliasError(
            f"{len(items)} images of {partition} are too few to fit on.",
            where=benchmark.root,
            fix="Add images.",
        )
    model = _fit(items, settings, workers)
    save_sift_vlad(model, out, fitted_on=fitted_on)
    return model


def draw_items(benchmark: Benchmark, partition: Partition, count: int, *, seed: int) -> list[Item]:
    """Draw at most ``count`` items of a partition, from at most 64 of its shards, in source order."""
    rng = np.random.default_rng(seed)
    shards = benchmark.shards(partition)
    chosen = np.sort(rng.permutation(len(shards))[:_MOST_SHARDS])
    items = [item for number in chosen for item in shards[number].items()]
    return [items[place] for place in np.sort(rng.permutation(len(items))[:count])]


def _fit(items: list[Item], settings: SiftVladSettings, workers: int | None) -> SiftVlad:
    rng = np.random.default_rng(settings.seed)
    some = [items[place] for place in np.sort(rng.permutation(len(items))[: settings.word_images])]
    each = max(1, settings.sample // len(some))

    def locals_of(item: Item) -> Floats:
        found = root_sift(_grey(item, settings), keypoints=settings.keypoints, contrast=settings.contrast)
        # The items are drawn at random and the keypoints come in no order of strength: any `each` will do.
        return found[np.random.default_rng(settings.seed).permutation(len(found))[:each]]

    words = learn_words(np.concatenate(_map(locals_of, some, "learn words", workers)), settings)
    vectors = np.stack(_map(lambda item: vlad_of(_grey(item, settings), words, settings), items, "fit", workers))
    return SiftVlad(settings, words, fit_whitening(vectors, dims=settings.dims, power=settings.whitening))


def _grey(item: Item, settings: SiftVladSettings) -> Any:
    return grey_picture(decode(item.read(), where=item.id), settings.resolution)


def _map(function: Callable[[Item], Floats], items: list[Item], label: str, workers: int | None) -> list[Floats]:
    results = []
    with (
        progress(label, total=len(items), unit="images") as step,
        one_thread_per_worker(),
        memory_kept(),
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            for result in pool.map(function, items):
                results.append(result)
                step()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results
