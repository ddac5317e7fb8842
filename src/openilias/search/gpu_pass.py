"""The first pass on a device: descriptors in low precision, and which pairs can reach the scores that count.

As on a CPU (:mod:`openilias.search.codes`, :mod:`openilias.search.kernels`): a row is ``(codes + what is lost) /
lift``, what is lost is measured row by row, and a pair is dropped only if an upper bound of its score stays below the
bar. The proof is in ``docs/exact-search.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.search.codes import MOST

PassName = Literal["int8", "float16", "bfloat16", "float32"]
"""The type of the codes."""
Kernels = Literal["triton", "torch"]

CODES: dict[PassName, torch.dtype] = {
    "int8": torch.int8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
_MOST_INT8_DIMS = 100_000  # 127 * 127 * dims stays below 2**31
_PAD = 16  # dimensions: what aligned loads and int8 products ask for
_SLACK = 2.0**-18
"""More than all float32 roundings of a comparison, and of scaling, relative to ``|q| |x|``."""
_TINY, _HUGE = 2.0**-60, 2.0**60  # rows beyond are always scored exactly: float32 cannot scale them safely
_LARGEST = 2.0**14  # power of two that float codes begin with: float16 holds 16 bits below that it can lose
_FLOAT32_MOST = np.float32(3.4028234663852886e38)


def _grown(dims: int) -> float:
    """Return a factor that covers the float32 roundings of a norm."""
    return 1.001 + dims * 2.0**-23


def drift(name: PassName, dims: int) -> float:
    """Bound the error of a sum of products of codes, relative to the product of the norms of the codes.

    Products of two float16 or bfloat16 codes are exact in float32, and sums of int8 codes are exact. Tensor cores
    truncate where a CPU rounds, and align several terms at once: hence four times the bound of rounded sums.
    """
    return 0.0 if name == "int8" else 4.0 * (dims + 8) * 2.0**-23


@dataclass(frozen=True)
class Rows:
    """Rows of the database as a first pass takes them.

    Attributes:
        codes: (M, D') with zeros added to the dimensions.
        own: (M,) float32: what a unit of ``|q|`` adds to the bound; infinite for rows that are always kept.
        other: (M,) float32: what a unit of the rest of the query adds.
        lift: (M,) float32: ``codes`` are about ``lift`` times the row.
        norm: (M,) float32, at least the norm of the row.
        bad: (M,) bool: a value is not finite, or larger than :data:`openilias.search.codes.MOST`.
    """

    codes: Tensor
    own: Tensor
    other: Tensor
    lift: Tensor
    norm: Tensor
    bad: Tensor


def encode(rows: Tensor, name: PassName) -> Rows:
    """Return (M, D) rows of any type for a first pass; float16 rows are their own float16 codes.

    On CUDA, float32 codes keep the 10 bits that TF32 has: then it does not matter whether products are made with it.
    """
    dims = rows.shape[1]
    grown = _grown(dims)
    if rows.dtype == torch.float16 == CODES[name]:
        size = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) * grown
        rest, lift, bad = torch.zeros_like(size), torch.ones_like(size), ~torch.isfinite(size)
        return _rows(rows, size, rest, lift, bad, drift(name, dims))
    wide = rows if rows.dtype == torch.float64 else rows.float()
    largest = wide.abs().amax(1)
    bad = ~torch.isfinite(largest)
    if rows.dtype == torch.float64:
        bad |= largest > MOST
    sane = (largest > _TINY) & (largest < _HUGE)
    safe = torch.where(sane, largest, 1.0).float()
    lift = 127 / safe if name == "int8" else _LARGEST / _power_of_two(safe)
    lift = torch.where(sane, lift, 0.0)
    scaled = wide * lift[:, None]
    codes = _rounded(scaled, name, rows.device.type)
    lost = scaled - codes
    rest = torch.linalg.vector_norm(lost, dim=1).float() * grown
    size = torch.linalg.vector_norm(codes.float(), dim=1) * grown
    rest = torch.where(sane | (largest == 0), rest, torch.inf)
    return _rows(codes, size, rest, torch.where(sane, lift, 1.0), bad, drift(name, dims))


def _rows(codes: Tensor, size: Tensor, rest: Tensor, lift: Tensor, bad: Tensor, error: float) -> Rows:
    norm = (size + rest) / lift * 1.001
    return Rows(_padded(codes), rest + (error + _SLACK) * size, size, lift, norm, bad)


def _padded(codes: Tensor) -> Tensor:
    more = -codes.shape[1] % _PAD
    return (F.pad(codes, (0, more)) if more else codes).contiguous()


def _rounded(scaled: Tensor, name: PassName, device: str) -> Tensor:
    if name == "int8":
        return scaled.round().to(torch.int8)
    codes = scaled.to(CODES[name])
    if name == "float32" and device == "cuda":
        codes = ((codes.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return codes


def _power_of_two(values: Tensor) -> Tensor:
    """Return the largest power of two that is not above each positive, normal float32."""
    return (values.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)


@dataclass(frozen=True)
class Asked:
    """Queries as a first pass takes them.

    Attributes:
        codes: (Q, D') on the device.
        size: (Q,) float32 on the device, at least ``|q|`` in scales of the query, and at least 1.
        rest: (Q,) float32 on the device, at least what the codes lose.
        factor: (Q,) float64; a query is ``codes / factor * 2**exponent``.
        exponent: (Q,).
        name: of the first pass.
    """

    codes: Tensor
    size: Tensor
    rest: Tensor
    factor: npt.NDArray[np.float64]
    exponent: npt.NDArray[Any]
    name: PassName

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.codes)

    def take(self, which: npt.NDArray[np.int64]) -> Asked:
        """Return some of them."""
        if len(which) == len(self):
            return self
        there = torch.from_numpy(which).to(self.codes.device)
        return replace(
            self,
            codes=self.codes[there].contiguous(),
            size=self.size[there],
            rest=self.rest[there],
            factor=self.factor[which],
            exponent=self.exponent[which],
        )

    def bars(self, least: npt.NDArray[np.float32]) -> Tensor:
        """Return what upper bounds must reach, (Q,) float32 on the device, for scores to reach ``least``."""
        # What is rounded up to the score counts too.
        below = np.nextafter(np.minimum(least, _FLOAT32_MOST), np.float32(-np.inf)).astype(np.float64)
        with np.errstate(over="ignore"):
            bars = np.ldexp(below * self.factor, -self.exponent).astype(np.float32)
        return torch.from_numpy(np.nextafter(bars, np.float32(-np.inf))).to(self.codes.device)

    def scores(self, products: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores that products (Q, n), over the lifts of the rows, stand for; none is infinite."""
        with np.errstate(over="ignore"):
            scores: npt.NDArray[np.float64] = np.ldexp(products / self.factor[:, None], self.exponent[:, None])
            return np.clip(scores, -_FLOAT32_MOST, _FLOAT32_MOST).astype(np.float32)


def ask(queries: npt.NDArray[Any], name: PassName, device: str) -> Asked:
    """Return (Q, D) finite queries of any type for a first pass."""
    mantissa, exponent = np.frexp(np.abs(queries.astype(np.float64)).max(axis=1, initial=0))
    factor = np.where(mantissa > 0, 127 / np.maximum(mantissa, 0.5), 1.0) if name == "int8" else 2 * _LARGEST
    factor = np.broadcast_to(np.float64(factor), mantissa.shape)
    scaled = torch.from_numpy(np.ldexp(queries.astype(np.float64), -exponent[:, None]) * factor[:, None])
    codes = _rounded(scaled, name, device.partition(":")[0])
    rest = (torch.linalg.vector_norm(scaled - codes.double(), dim=1) * _grown(queries.shape[1])).float()
    # A query of zeros must not make the bound of a row that is always kept vanish.
    size = (torch.linalg.vector_norm(scaled, dim=1).float() * _grown(queries.shape[1]) + rest).clamp_min(1)
    return Asked(_padded(codes).to(device), size.to(device), rest.to(device), factor, exponent, name)


def products(rows: Tensor, queries: Tensor) -> Tensor:
    """Return the inner products (M, Q) float32 of codes, in pure PyTorch."""
    if rows.dtype == torch.int8:
        # CUDA asks for more than 16 rows, and for a multiple of 8 queries.
        few, more = max(0, 32 - len(rows)), -len(queries) % 8
        left, right = F.pad(rows, (0, 0, 0, few)), F.pad(queries, (0, 0, 0, more))
        return torch._int_mm(left, right.t())[: len(rows), : len(queries)].float()
    if rows.dtype == torch.float32:
        return rows @ queries.t()
    if rows.is_cuda:
        try:
            out: Tensor = torch.mm(rows, queries.t(), out_dtype=torch.float32)
        except (TypeError, RuntimeError, NotImplementedError):  # before PyTorch 2.8
            pass
        else:
            return out
    return rows.float() @ queries.float().t()  # no code loses anything; TF32 holds them too


@dataclass(frozen=True)
class Survivors:
    """Pairs that may count.

    Attributes:
        listed: (n, 2) int64: row, query. Or (n, 3) int32: row, number of a group of 32 queries, a bit for each.
    """

    listed: Tensor

    def parts(self, most: int = 1 << 20) -> Iterator[Tensor]:
        """Yield the pairs (n, 2) int64: row, query; at most so many at once, or 32."""
        words = self.listed.shape[1] == 3
        step = max(1, most // 32 if words else most)
        for start in range(0, len(self.listed), step):
            part = self.listed[start : start + step]
            yield _pairs_of(part) if words else part


def _pairs_of(words: Tensor) -> Tensor:
    bits = torch.arange(32, device=words.device, dtype=torch.int32)
    which, bit = ((words[:, 2:] >> bits) & 1).nonzero(as_tuple=True)
    return torch.stack((words[which, 0].long(), words[which, 1].long() * 32 + bit), 1)


@dataclass(frozen=True)
class TorchFilter:
    """The filter in pure PyTorch.

    Attributes:
        pairs: how many products may be in memory.
    """

    pairs: int

    def __call__(self, rows: Rows, asked: Asked, bars: Tensor) -> Survivors:
        """Return which pairs may reach the bars."""
        upper = products(rows.codes, asked.codes).addr_(rows.own, asked.size).addr_(rows.other, asked.rest)
        return Survivors((upper >= torch.outer(rows.lift, bars)).nonzero())


@dataclass(frozen=True)
class TritonFilter:
    """The filter as one kernel.

    Attributes:
        capacity: how many words fit into the list.
        tile: how the kernel cuts its work.
        room: the list, once it is needed; filters that take turns share it.
    """

    capacity: int
    tile: Any
    room: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, rows: Rows, asked: Asked, bars: Tensor) -> Survivors | int:
        """Return which pairs may reach the bars; or by which factor the list is too short."""
        from openilias.search.triton_kernels import WORD, keep_words

        device = rows.codes.device
        capacity = max(self.capacity, -(-len(asked) // WORD))  # one row always fits
        if not self.room or len(self.room[0]) < capacity:
            self.room[:] = [torch.empty((capacity, 3), dtype=torch.int32, device=device)]
        words = self.room[0]
        counter = torch.zeros(1, dtype=torch.int64, device=device)
        parts, queries = (rows.own, rows.other, rows.lift), (asked.size, asked.rest, bars)
        keep_words(rows.codes, asked.codes, parts, queries, words, counter, self.tile)
        count = int(counter)
        return Survivors(words[:count]) if count <= len(words) else -(-count // len(words))


Filter = TorchFilter | TritonFilter


def pass_names(first_pass: str | None, *, cuda: bool) -> list[PassName]:
    """Return the first passes to consider, the likely fastest first."""
    if first_pass is None:
        return ["float16", "int8", "bfloat16", "float32"] if cuda else ["float32"]
    found: list[PassName] = [name for name in CODES if name == first_pass]
    if not found:
        raise OpenIliasError(f"There is no first pass {first_pass!r}.", fix=f"Use one of {', '.join(CODES)}.")
    return found


def filters(kernels: Kernels | None, device: str, products_at_once: int, words: int, memory: int) -> list[Filter]:
    """Return the filters to consider, the likely fastest first.

    Args:
        kernels: which; Triton and, in case it does not work, PyTorch on CUDA, PyTorch elsewhere by default.
        device: where.
        products_at_once: at most, in PyTorch.
        words: length of the list that Triton writes, at most.
        memory: bytes of the device that there are.

    Raises:
        OpenIliasError: Triton is asked for and not installed.
    """
    pure: list[Filter] = [TorchFilter(max(1, min(products_at_once, memory // 48)))]
    cuda = device.startswith("cuda")
    capability = torch.cuda.get_device_capability(device)[0] if cuda else 9
    # Triton has no tensor cores for the generation before Ampere.
    if kernels == "torch" or (kernels is None and not (cuda and capability >= 8)):
        return pure
    try:
        from openilias.search.triton_kernels import TILES
    except ImportError:
        if kernels is None:
            return pure
        raise OpenIliasError("Triton is not installed.", fix="pip install triton, or use kernels='torch'.") from None
    first = TritonFilter(max(1, min(words, memory // 96)), TILES[0])
    fused: list[Filter] = [replace(first, tile=tile) for tile in (TILES if capability >= 9 else TILES[-2:])]
    return fused + pure if kernels is None else fused


def is_sound(name: PassName, dims: int, device: str, keep: Filter) -> bool:
    """Try whether a first pass works on a device and keeps all it must, and little else."""
    if name == "int8" and dims > _MOST_INT8_DIMS:
        return False
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((33, dims), np.float32), rng.standard_normal((150, dims), np.float32)
    # Extremes of one sign add up, those of two cancel; float16 has subnormals and ends at 65504.
    queries[:11], rows[:23] = np.sign(queries[:11]), np.sign(rows[:23])
    queries[0], rows[0], rows[1] = 1, 1, -1
    queries[1, 1::2], rows[2, 1::2] = 2.0**-13, 2.0**-13
    rows[30:40], rows[40:50] = rows[30:40] * np.float32(1e-6), np.sign(rows[40:50]) * 65504
    try:
        return all(
            _keeps(rows.astype(stored), queries.astype(stored), name, device, keep)
            for stored in (np.float16, np.float32)
        )
    except Exception:  # compilers and drivers raise whatever they like; then it is not used
        return False


def _keeps(rows: npt.NDArray[Any], queries: npt.NDArray[Any], name: PassName, device: str, keep: Filter) -> bool:
    coded, asked = encode(torch.from_numpy(rows).to(device), name), ask(queries, name, device)
    exact = rows.astype(np.float64) @ queries.astype(np.float64).T
    own, other, lift = (part.cpu().numpy().astype(np.float64)[:, None] for part in (coded.own, coded.other, coded.lift))
    bound = own * asked.size.cpu().numpy() + other * asked.rest.cpu().numpy()
    bound = np.ldexp(bound / lift / asked.factor, asked.exponent)
    for quantile in (0, 0.4, 0.9, 1):
        least = np.quantile(exact, quantile, axis=0, method="nearest").astype(np.float32)
        found = keep(coded, asked, asked.bars(least))
        if isinstance(found, int):
            return False
        kept = np.zeros(exact.shape, bool)
        for pairs in found.parts():
            row, query = pairs.cpu().numpy().T
            kept[row, query] = True
        if (kept < (exact.astype(np.float32) >= least)).any() or (kept > (exact >= least - 2.01 * bound - 1e-30)).any():
            return False
    return True
