"""Exact scores of pairs on a device: in float64 there, and where the order of summation matters, again on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from openilias.search.gpu_feed import Numbers
from openilias.search.gpu_pass import Kernels
from openilias.search.kernels import score
from openilias.search.keys import Found, key_of

Array = npt.NDArray[Any]

_EXACT_REACH = 31.9
"""Below this ``|q| |x|`` float64 holds every sum of products of float16 values."""
_ON_HOST = 1 << 15


class Scored(NamedTuple):
    """Pairs that count.

    Attributes:
        row: (n,) int32.
        query: (n,) int32.
        value: (n,) float32 exact scores.
    """

    row: npt.NDArray[np.int32]
    query: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]

    def found(self, numbers: Numbers, places: npt.NDArray[Any]) -> Found:
        """Return what :meth:`openilias.search.best.Best.add` takes; ``numbers`` are those of the rows."""
        canonical = numbers.start + self.row.astype(np.int64) if isinstance(numbers, range) else numbers[self.row]
        key = np.empty(len(canonical), np.uint64)
        _write_keys(self.value, canonical, key)
        return Found(self.query, key, places.astype(np.int32))


@njit(cache=True, nogil=True)
def _write_keys(values: Any, rows: Any, keys: Any) -> None:
    for i in range(len(keys)):
        keys[i] = key_of(values[i], rows[i])


@njit(cache=True, nogil=True)
def _score_pairs(left: Any, right: Any, out: Any) -> None:
    for i in range(len(out)):
        out[i] = score(left[i], right[i])


class ExactScores:
    """Exact scores of queries and rows.

    Args:
        queries: (Q, D) of any type of number.
        device: where the rows are.
        memory: bytes that it may take there.
        kernels: what computes there.
    """

    def __init__(self, queries: Array, device: str, memory: int, kernels: Kernels) -> None:
        self._queries = queries
        self._norm = np.linalg.norm(queries.astype(np.float64), axis=1) * (1 + 1e-9)
        self._kernels = kernels
        # Pairs at once: three float64 copies in pure PyTorch, and a few numbers each.
        width = queries.shape[1] if kernels == "torch" else 0
        self._pairs = max(1024, min(1 << 22, memory // (24 * width + 128)))
        self._device = "cpu" if device == "mps" else device  # which has no float64
        self._there = torch.from_numpy(np.array(queries)).to(self._device)
        self._norm_there = torch.from_numpy(self._norm).to(self._device)

    def __call__(self, rows: Tensor, norm: Tensor, pairs: Tensor, least: Array, below: Array) -> Iterator[Scored]:
        """Yield the pairs whose score reaches what counts.

        Args:
            rows: (M, D) stored values on the device, C order.
            norm: (M,) float32, at least their norms.
            pairs: (n, 2) int64 on the device: row, query.
            least: (Q,) float32: lower scores do not count.
            below: (Q,) float32: scores from here on do not count; NaN for no limit.
        """
        halves = self._queries.dtype == np.float16 and rows.dtype == torch.float16
        limits = torch.from_numpy(np.stack((least, below))).to(self._device)
        for start in range(0, len(pairs), self._pairs):
            part = pairs[start : start + self._pairs]
            if rows.device.type == torch.device(self._device).type:
                scored, whole = self._scored(rows, norm, part, limits, halves)
            else:
                some, places = torch.unique(part[:, 0], return_inverse=True)
                moved = torch.stack((places, part[:, 1]), 1).to(self._device)
                scored, whole = self._scored(rows[some].cpu(), norm[some].cpu(), moved, limits, halves)
                scored = scored._replace(row=some.to(torch.int32).cpu().numpy()[scored.row])
            if not whole:
                which = (scored.value >= least[scored.query]) & ~(scored.value >= below[scored.query])
                scored = Scored(scored.row[which], scored.query[which], scored.value[which])
            yield scored

    def works(self) -> bool:
        """Try whether float64 sums of the device are what they should be."""
        dims = self._queries.shape[1]
        right = np.random.default_rng(0).standard_normal((40, dims)).astype(np.float32)
        pairs = np.stack((np.arange(40), np.arange(40) % max(1, len(self._queries))), 1)
        left = self._queries[pairs[:, 1]].astype(np.float64)
        bound = self._norm[pairs[:, 1]] * np.linalg.norm(right.astype(np.float64), axis=1) * 4 * (dims + 2) * 2.0**-53
        try:
            row, query = torch.from_numpy(pairs).to(self._device).T.contiguous()
            totals = self._totals(torch.from_numpy(right).to(self._device), row, query).cpu().numpy()
        except Exception:  # compilers and drivers raise whatever they like; then it is not used
            return False
        return bool((np.abs(totals - (left * right).sum(1)) <= bound).all())

    def _scored(self, rows: Tensor, norm: Tensor, pairs: Tensor, limits: Tensor, halves: bool) -> tuple[Scored, bool]:
        """Return pairs that reach what counts; or, and then False, that may."""
        row, query = pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
        total = self._totals(rows, row, query)
        reach = norm[row].double() * self._norm_there[query]
        doubt = reach * (4.0 * (self._queries.shape[1] + 2) * 2.0**-53)  # as kernels.doubt_of
        doubt = torch.where(reach < _EXACT_REACH, 0.0, doubt) if halves else doubt
        low, high = (total - doubt).float(), (total + doubt).float()
        unsure = low != high  # also what is not a number
        likely = (unsure | ((low >= limits[0, query]) & ~(low >= limits[1, query]))).nonzero()[:, 0]
        pairs, value, unsure = pairs[likely], low[likely].cpu().numpy(), unsure[likely]
        again = bool(unsure.any())
        if again:
            value[unsure.cpu().numpy()] = self._in_order(rows, pairs[unsure])
        row32, query32 = pairs.to(torch.int32).t().contiguous().cpu().numpy()
        return Scored(row32, query32, value + np.float32(0)), not again  # no negative zero

    def _totals(self, rows: Tensor, row: Tensor, query: Tensor) -> Tensor:
        if self._kernels == "torch":
            return (rows[row].double() * self._there[query].double()).sum(1)
        from openilias.search.triton_kernels import dots

        return dots(rows, self._there, row, query)

    def _in_order(self, rows: Tensor, pairs: Tensor) -> npt.NDArray[np.float32]:
        """Return scores as they are defined, from the host."""
        values = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), _ON_HOST):
            some = pairs[start : start + _ON_HOST]
            right = rows[some[:, 0]].cpu().numpy().astype(np.float64)
            left = self._queries[some[:, 1].cpu().numpy()].astype(np.float64)
            _score_pairs(left, right, values[start : start + _ON_HOST])
        return values


def exact_scores(queries: Array, device: str, memory: int, kernels: Kernels) -> ExactScores:
    """Return :class:`ExactScores` with Triton only if it works."""
    if kernels == "triton":
        scores = ExactScores(queries, device, memory, "triton")
        if scores.works():
            return scores
    return ExactScores(queries, device, memory, "torch")
