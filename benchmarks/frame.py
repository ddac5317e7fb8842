"""What the defaults of the frame rest on: threads per image, batch size on CPUs, the cost of exact search.

    make bench        or        python benchmarks/frame.py

Every line compares on the same data in this process, medians of several runs; ratios matter, not seconds.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from openilias.core.manifests import software
from openilias.core.protocol import Protocol
from openilias.core.threads import one_thread_per_worker
from openilias.models.backbone import Backbone
from openilias.models.sift_vlad import SiftVladSettings, vlad_of
from openilias.models.zoo import find_model, load_model
from openilias.search.exact import topk

REPEATS = 5


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float, float]:
    """Return (median, least, most) seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times), min(times), max(times)


def show(name: str, found: tuple[float, float, float], items: int, unit: str, base: float) -> None:
    median, least, most = found
    print(
        f"  {name:<34} {items / median:10.1f} {unit}/s   ({items / most:.1f} to {items / least:.1f})   "
        f"x {base / median:.2f}"
    )


def threads_per_image() -> None:
    print("RootSIFT-VLAD of 24 pictures of 500 x 375, a thread per core")
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (47, 63), dtype=np.uint8)) for _ in range(24)]
    pictures = [np.asarray(image.resize((500, 375), Image.Resampling.BICUBIC)) for image in coarse]
    words = rng.random((128, 128)).astype(np.float32)
    settings = SiftVladSettings()

    def describe() -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda grey: vlad_of(grey, words, settings), pictures))

    describe()
    plain = seconds(describe)
    with one_thread_per_worker():
        single = seconds(describe)
    show("libraries with threads of their own", plain, 24, "images", plain[0])
    show("one thread per image (ours)", single, 24, "images", plain[0])


def batch_sizes() -> None:
    for name in ("mobilenetv2_100", "resnet18", "vit_tiny_patch16_224"):
        print(f"{name}, 16 pictures of 384 x 288, on the CPU")
        backbone = load_model(find_model(name), Protocol(resolution=384), random_weights=0)
        batch = np.random.default_rng(0).integers(0, 256, (16, 288, 384, 3), dtype=np.uint8)
        base = 0.0
        for size in (32, 16, 8, 4, 2, 1):
            many = np.concatenate([batch, batch]) if size == 32 else batch

            def describe(size: int = size, many: np.ndarray = many, model: Backbone = backbone) -> None:
                for start in range(0, len(many), size):
                    model.encode_images(many[start : start + size])

            describe()
            found = seconds(describe, 3)
            base = base or found[0] / len(many) * 16
            scaled = (found[0] * 16 / len(many), found[1] * 16 / len(many), found[2] * 16 / len(many))
            show(f"batch {size}", scaled, 16, "images", base)


def exact_search() -> None:
    print("search: 200 queries, 100,000 x 512, k = 1000")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100_000, 512), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for dtype in (np.float16, np.float32):
        data = x.astype(dtype)
        queries = data[:200]

        def plain(data: np.ndarray = data, queries: np.ndarray = queries) -> None:
            scores = torch.from_numpy(queries.astype(np.float32)) @ torch.from_numpy(data.astype(np.float32)).T
            torch.topk(scores, 1000)

        base = seconds(plain, 3)
        show(f"torch float32 matmul + topk, {dtype.__name__}", base, 200, "queries", base[0])
        ours = seconds(lambda data=data, queries=queries: topk(queries, [data], 1000), 3)
        show(f"exact, ordered (ours), {dtype.__name__}", ours, 200, "queries", base[0])


if __name__ == "__main__":
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    print(f"{platform.machine()}, {os.cpu_count()} cores; {versions}")
    print("rate (least to most), ratio to the first line of each block\n")
    threads_per_image()
    batch_sizes()
    exact_search()
