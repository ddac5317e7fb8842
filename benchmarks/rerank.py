"""Re-ranking one query by local descriptors, beside plain PyTorch, and what the machine could do.

    python benchmarks/rerank.py                      600 x 100 descriptors of 128 bits, shortlists of 1,000, CPU
    python benchmarks/rerank.py --device cuda        AMES on a GPU besides
    python benchmarks/rerank.py --quick              shortlists of 50

Both sides of a method get the same packed descriptors of random images, a third of which hold a part of the query
where an affine map puts it; their results are compared. Lines are measured in turns in one process; medians of the
rounds are printed, seconds per query.

    chamfer         ours against bits unpacked to +1 and -1, and one product per image
    spatial         ours against the same steps in NumPy and PyTorch: all distances, all hypotheses, least squares
    ames            ours against one dense masked attention over all tokens, as it is published (random weights); of a
                    large shortlist the plain one is measured on some images, and multiplied
    roofline        what the arithmetic alone takes: popcounts at the speed of a bare loop over as many words, products
                    at that of torch.mm of the shapes of AMES
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from torch import Tensor, nn

from openilias.core.manifests import software
from openilias.models.local_features import LocalFeatures
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import binarisation_of
from openilias.rerank.ames_scores import AmesScores
from openilias.rerank.chamfer import chamfer
from openilias.rerank.hamming import _popcount
from openilias.rerank.similarities import Candidates
from openilias.rerank.spatial import SpatialSettings, spatial

BITS, SIDE = 128, 770


def made(images: int, asked: int, known: int) -> tuple[LocalFeatures, Candidates, np.ndarray]:
    """Return a query and its candidates, and the numbers that the bits of the query are signs of."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((asked, BITS)).astype(np.float32)
    geometry = np.concatenate([rng.random((asked, 2)), np.ones((asked, 1)), np.zeros((asked, 1))], 1)
    others = rng.standard_normal((images, known, BITS)).astype(np.float32)
    places = np.concatenate(
        [rng.random((images, known, 2)), np.ones((images, known, 1)), np.zeros((images, known, 1))], 2
    )
    for image in range(0, images, 3):
        count = int(rng.integers(5, known // 2 + 1))
        mine, there = rng.permutation(asked)[:count], rng.permutation(known)[:count]
        linear = np.eye(2) * rng.uniform(0.6, 1.2) + 0.1 * rng.standard_normal((2, 2))
        others[image, there] = numbers[mine] + 0.4 * rng.standard_normal((count, BITS))
        moved = (geometry[mine, :2] - 0.5) @ linear.T + 0.5 + 0.004 * rng.standard_normal((count, 2))
        places[image, there, :2] = moved.clip(0, 1)
    query = LocalFeatures(np.packbits(numbers >= 0, axis=1), geometry.astype(np.float32), SIDE, SIDE)
    flat = others.reshape(-1, BITS)
    some = Candidates(
        np.packbits(flat >= 0, axis=1),
        places.reshape(-1, 4).astype(np.float32),
        np.full((images, 2), SIDE),
        np.arange(images + 1) * known,
    )
    return query, some, numbers


def signs(packed: np.ndarray) -> Tensor:
    """Return +1 and -1."""
    return torch.from_numpy(np.unpackbits(packed, axis=1)).float() * 2 - 1


def plain_chamfer(query: LocalFeatures, some: Candidates) -> np.ndarray:
    """One product per image."""
    asked, known = signs(query.descriptors), signs(some.descriptors)
    scores = []
    for start, end in zip(some.offsets, some.offsets[1:], strict=False):
        scores.append((asked @ known[start:end].T / BITS).amax(1).sum())
    return torch.stack(scores).numpy()


def plain_spatial(query: LocalFeatures, some: Candidates, how: SpatialSettings) -> np.ndarray:
    """All distances, all hypotheses at once, and least squares on the best ones."""
    asked, known = signs(query.descriptors), signs(some.descriptors)
    mine = torch.from_numpy(query.geometry[:, [1, 0]].astype(np.float64)) * SIDE
    scores = []
    for start, end in zip(some.offsets, some.offsets[1:], strict=False):
        distances, places = ((BITS - asked @ known[start:end].T) / 2).min(1)
        near = distances <= how.hamming
        here = mine[near]
        there = torch.from_numpy(some.geometry[start:end, [1, 0]].astype(np.float64))[places[near]] * SIDE
        best = sampled = 0
        if len(here):
            shifts = there - here
            inside = torch.cdist(shifts, shifts) <= how.tolerance
            for hypothesis, count in enumerate(inside.sum(1).tolist()):
                if count <= sampled:
                    continue
                sampled, best = count, max(best, count)
                linear, shift = torch.eye(2, dtype=torch.float64), shifts[hypothesis]
                for step in range(how.rounds):
                    wide = how.tolerance * (1 + (how.rounds - 1 - step) / how.rounds)
                    kept = (here @ linear.T + shift - there).norm(dim=1) <= wide
                    rows = torch.cat([here[kept], torch.ones(int(kept.sum()), 1, dtype=torch.float64)], 1)
                    if len(rows) < 3 or torch.linalg.matrix_rank(rows) < 3:
                        break
                    solved = torch.linalg.lstsq(rows, there[kept]).solution
                    linear, shift = solved[:2].T, solved[2]
                    stretches = torch.linalg.svdvals(linear)
                    if torch.linalg.det(linear) <= 0 or stretches[0] > how.stretch or stretches[1] * how.stretch < 1:
                        break
                    best = max(best, int(((here @ linear.T + shift - there).norm(dim=1) <= how.tolerance).sum()))
        scores.append(best if best >= how.least else 0)
    return np.array(scores, np.float32)


class DenseAmes(nn.Module):
    """The published form: one sequence, a mask over everything, every token of every layer."""

    def __init__(self, network: Ames) -> None:
        super().__init__()
        self.network = network
        state, dims = network.state_dict(), network.dims
        self.attentions = nn.ModuleList()
        for number in range(len(network.decoder.layers)):
            for name in ("self_attn", "cross_attn"):
                attention = nn.MultiheadAttention(dims, 2, batch_first=True)
                prefix = f"decoder.layers.{number}.{name}."
                attention.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
                self.attentions.append(attention.to(next(network.parameters()).device))

    def forward(self, query: Tensor, images: Tensor) -> Tensor:
        """Return (B,) of tokens (1, Q, D) and (B, T, D)."""
        batch, asked, known = len(images), query.shape[1], images.shape[1]
        x = torch.cat([self.network.mtc_token.expand(batch, 1, -1), query.expand(batch, -1, -1), images], 1)
        side = torch.tensor([0] + [1] * asked + [2] * known, device=x.device)
        both = (side[:, None] > 0) & (side[None] > 0)
        masks = both & (side[:, None] != side[None]), both & (side[:, None] == side[None])
        padded = torch.zeros(batch, x.shape[1], dtype=torch.bool, device=x.device)
        for number, layer in enumerate(self.network.decoder.layers):
            for part, norm in enumerate((layer.norm1, layer.norm2)):
                attention = self.attentions[2 * number + part]
                x = norm(x + attention(x, x, x, attn_mask=masks[part], key_padding_mask=padded)[0])
            x = layer.norm3(x + layer.linear2(F.relu(layer.linear1(x))))
        scores: Tensor = self.network.classifier(x[:, 0]).view(-1)
        return scores


@njit(nogil=True, parallel=True)
def bare_popcounts(words: Any, count: int, out: Any) -> None:
    """Count as many bits as a shortlist needs, of words that lie in the cache."""
    for image in prange(len(out)):
        total = np.uint64(0)
        for q in range(count):
            for j in range(len(words)):
                total += _popcount(words[j] ^ np.uint64(q))
        out[image] = total


def timed(work: Callable[[], Any], device: str) -> float:
    """Return the seconds of one call."""
    begun = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--query-descriptors", type=int, default=600)
    parser.add_argument("--descriptors", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ames-images", type=int, default=64, help="that the plain AMES is measured on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.images, options.rounds, options.ames_images = 50, 2, 16
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {software()}")
    print(
        f"shortlists of {options.images}, {options.query_descriptors} x {options.descriptors} descriptors of {BITS} "
        f"bits: {BITS * options.descriptors // 8:,} bytes per image, {16 * options.descriptors:,} for where they are"
    )
    query, some, numbers = made(options.images, options.query_descriptors, options.descriptors)
    how = SpatialSettings()
    network = Ames(BITS, binary=True).eval()
    with torch.no_grad():  # the bits are the signs of the numbers themselves, and all other numbers matter
        network.remap_local[0].W.copy_(torch.eye(BITS))
        for name, value in network.named_parameters():
            if not name.endswith("0.W"):
                value.add_(0.1 * torch.randn_like(value))
    assert (binarisation_of(network).pack(numbers) == query.descriptors).all()
    network.to(options.device)
    scorer = AmesScores(network, options.device, precision=options.precision)
    dense = DenseAmes(network)
    count = min(options.ames_images, options.images)
    few = Candidates(
        *(values[: count * options.descriptors] for values in some[:2]), some.sizes[:count], some.offsets[: count + 1]
    )

    @torch.inference_mode()
    def plain_ames() -> np.ndarray:
        asked = network.from_signs(signs(query.descriptors).to(options.device))[None]
        tokens = network.from_signs(signs(few.descriptors).to(options.device)).view(count, -1, BITS)
        return np.concatenate([dense(asked, part).cpu().numpy() for part in tokens.split(16)])

    words = np.random.default_rng(0).integers(0, 2**63, 2 * options.descriptors).astype(np.uint64)
    counted = np.zeros(options.images, np.uint64)
    lines: dict[str, tuple[Callable[[], Any], float]] = {
        "chamfer, ours": (lambda: chamfer(query.descriptors, some.descriptors, some.offsets), 1),
        "chamfer, plain": (lambda: plain_chamfer(query, some), 1),
        "chamfer, popcounts alone": (lambda: bare_popcounts(words, options.query_descriptors, counted), 1),
        "spatial, ours": (lambda: spatial(query, *some, settings=how), 1),
        "spatial, plain": (lambda: plain_spatial(query, some, how), 1),
        "ames, ours": (lambda: scorer(query, few), options.images / count),
        "ames, plain": (plain_ames, options.images / count),
        "ames, products alone": ames_products(options),
    }
    results = {name: work() for name, (work, _) in lines.items()}  # compiled, and compared below
    times: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(options.rounds):
        for name, (work, factor) in lines.items():
            device = options.device if name.startswith("ames") else "cpu"
            times[name].append(factor * timed(work, device))
    print("\n| line | s per query |\n|---|---:|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.4f} |")
    print()
    for method in ("chamfer", "spatial", "ames"):
        ours, plain = (statistics.median(times[f"{method}, {side}"]) for side in ("ours", "plain"))
        apart = np.abs(results[f"{method}, ours"] - results[f"{method}, plain"]).max()
        print(f"{method}: plain / ours = {plain / ours:.2f}; results within {apart:.2g}")
    for method, bare in (("chamfer", "popcounts"), ("ames", "products")):
        share = statistics.median(times[f"{method}, {bare} alone"]) / statistics.median(times[f"{method}, ours"])
        print(f"{method}: {100 * share:.0f}% of the roofline ({bare} alone)")


def ames_products(options: argparse.Namespace) -> tuple[Callable[[], Any], float]:
    """Return some products, and how many times as many AMES cannot do without."""
    asked, known, dims, wide = options.query_descriptors, options.descriptors, 128, 1024
    tokens = asked + known + 1
    own = asked * (asked + 1) + known * (known + 1) + tokens
    other = asked * (known + 1) + known * (asked + 1) + tokens
    per_pair = 2 * (
        4 * (4 * tokens * dims * dims) + known * 4 * dims * dims  # projections of the first attention; once the query's
        + 4 * (4 * tokens * dims * dims) + 2 * tokens * dims * dims  # of the second; of the last layer keys and values
        + 4 * 2 * tokens * dims * wide  # the inner layers, but the last
        + 2 * dims * (4 * own + known * known + 4 * other)
    )  # fmt: skip
    rows, repeats = (1024, 200) if options.device == "cpu" else (65536, 50)  # on a CPU what stays in the cache
    left = torch.randn(rows, dims, device=options.device)
    right = torch.randn(dims, wide, device=options.device)
    made = torch.empty(rows, wide, device=options.device)

    def products() -> None:
        for _ in range(repeats):
            torch.mm(left, right, out=made)

    return products, per_pair * options.images / (2 * rows * dims * wide * repeats)


if __name__ == "__main__":
    main()
