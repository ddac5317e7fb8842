"""From the scores of several models to the best images, one source at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.build.mini.alignment import Scored, Together, together
from openilias.core.files import temporary_beside
from openilias.descriptors.store import told_if_full

Combine = Literal["mean", "zscore", "rank"]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Rule = Callable[[Together], Doubles]


class Best:
    """The ``most`` largest of a stream of scores; of equal ones those that came first. Holds about twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._scores: list[Doubles] = []
        self._places: list[Places] = []
        self._held = self._came = 0

    def add(self, scores: Doubles) -> None:
        """Take the next scores of the stream."""
        self._scores.append(scores)
        self._places.append(np.arange(self._came, self._came + len(scores)))
        self._came += len(scores)
        self._held += len(scores)
        if self._held > 2 * self._most + 100_000:
            self._shrink()

    def _shrink(self) -> None:
        scores, places = np.concatenate(self._scores), np.concatenate(self._places)
        if len(scores) > self._most:
            least = np.partition(scores, len(scores) - self._most)[len(scores) - self._most]
            keep = scores > least
            equal = np.flatnonzero(scores == least)
            keep[equal[: self._most - int(keep.sum())]] = True
            scores, places = scores[keep], places[keep]
        self._scores, self._places, self._held = [scores], [places], len(scores)

    def result(self) -> tuple[Places, Doubles]:
        """Return the places of the best in the stream, in its order, and their scores."""
        if not self._scores:
            return np.zeros(0, np.int64), np.zeros(0)
        self._shrink()
        return self._places[0], self._scores[0]


@contextmanager
def rule_of(combine: Combine, scored: Sequence[Scored], folder: Path) -> Iterator[Rule]:
    """Give what makes one number of the scores of several models.

    ``mean`` averages the similarities themselves, ``zscore`` in units of each model's standard deviation about its
    mean over all images, ``rank`` the share of images that score less (of equal ones half), so that a model whose
    similarities spread more has no larger say.

    Args:
        combine: which.
        scored: the models.
        folder: for ``rank``, where the sorted scores of each model lie meanwhile, 4 bytes an image.
    """
    if combine == "mean":
        yield lambda group: _mean(values.astype(np.float64) for values in group.scores)
    elif combine == "zscore":
        measured = _moments(scored)
        yield lambda group: _mean(
            (values - mean) / (deviation or 1.0)
            for values, (mean, deviation) in zip(group.scores, measured, strict=True)
        )
    else:
        with _sorted_scores(scored, folder) as ordered:
            yield lambda group: _mean(
                (np.searchsorted(of, values, "left") + np.searchsorted(of, values, "right")) / (2 * len(of))
                for values, of in zip(group.scores, ordered, strict=True)
            )


def _mean(parts: Iterable[npt.NDArray[np.floating]]) -> Doubles:
    listed = list(parts)
    return np.asarray(np.sum(listed, axis=0) / len(listed), np.float64)


def _moments(scored: Sequence[Scored]) -> list[tuple[float, float]]:
    """Return mean and standard deviation of each model over the images that all have."""
    count, sums = 0, np.zeros(len(scored))
    for group in together(scored):
        count += len(group.ids)
        sums += [values.sum(dtype=np.float64) for values in group.scores]
    means = sums / max(count, 1)
    squares = np.zeros(len(scored))
    for group in together(scored):
        squares += [
            np.square(values.astype(np.float64) - mean).sum() for values, mean in zip(group.scores, means, strict=True)
        ]
    return list(zip(means.tolist(), np.sqrt(squares / max(count, 1)).tolist(), strict=True))


@contextmanager
def _sorted_scores(scored: Sequence[Scored], folder: Path) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give the sorted scores of each model, mapped from files that go away."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = []
        for number in range(len(scored)):
            path = temporary_beside(folder / f"sorted-{number}")
            stack.callback(path.unlink, missing_ok=True)
            files.append(stack.enter_context(path.open("w+b")))
        for group in together(scored):
            with told_if_full(folder):
                for file, values in zip(files, group.scores, strict=True):
                    file.write(values.tobytes())
        ordered = []
        for file in files:
            file.flush()
            size = file.tell() // 4
            values = np.memmap(file, np.float32, "r+", shape=(size,)) if size else np.zeros(0, np.float32)
            values.sort()
            ordered.append(values)
        yield ordered


def random_places(sizes: Sequence[int], most: int, seed: int, number: int) -> Iterator[Places]:
    """Yield for each source the places of a random subset of all, uniform over subsets of ``most`` images.

    How many each source gives is hypergeometric, and which ones are drawn without replacement; so nothing of the size
    of the whole is held.

    Args:
        sizes: images of each source.
        most: of the subset, at most all.
        seed: of all subsets.
        number: of this one.
    """
    counts = np.random.default_rng([seed, number]).multivariate_hypergeometric(list(sizes), most, method="marginals")
    for source, (size, count) in enumerate(zip(sizes, counts.tolist(), strict=True)):
        draw = np.random.default_rng([seed, number, source])
        yield np.sort(draw.choice(size, count, replace=False)).astype(np.int64)
