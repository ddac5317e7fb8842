"""What keeping memory is worth on a CPU (`openilias.core.memory`): seconds per image, pages fetched, memory.

    python benchmarks/memory.py --rounds 3

Each line runs in a process of its own, with the memory kept and as usual in turns. Networks with random weights,
batches of 8; SIFT on one thread, as the workers have it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from openilias.core.manifests import software

LINES = (("mobilenetv2_100", 384), ("resnet50", 384), ("resnet50", 724), ("vit_small_patch16_224", 384), ("sift", 500))
IMAGES = 8


def measure(name: str, resolution: int, kept: bool) -> dict[str, float]:
    """Describe a batch a few times; return what one image took at the median."""
    from openilias.core.memory import keep_memory
    from openilias.core.protocol import Protocol
    from openilias.models.local_backbone import LocalSettings
    from openilias.models.local_zoo import load_local
    from openilias.models.zoo import find_model, load_model

    if kept:
        keep_memory()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (IMAGES, 40, 40, 3), dtype=np.uint8)
    from PIL import Image

    pictures = [Image.fromarray(one).resize((resolution, resolution), Image.Resampling.BICUBIC) for one in coarse]
    if name == "sift":
        import cv2

        cv2.setNumThreads(1)
        local = load_local("sift", LocalSettings(resolution=resolution))
        prepare: Any = local.preparation()
        describe: Any = lambda: [prepare(one) for one in pictures]  # noqa: E731 - one of two ways
    else:
        backbone = load_model(find_model(name), Protocol(resolution=resolution), random_weights=0)
        batch = np.stack([backbone.prepare(one) for one in pictures])
        describe = lambda: backbone.encode_images(batch)  # noqa: E731 - the other one
    describe()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF), []
    for _ in range(5):
        started = time.perf_counter()
        describe()
        seconds.append((time.perf_counter() - started) / IMAGES)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": statistics.median(seconds),
        "pages": (after.ru_minflt - before.ru_minflt) / (5 * IMAGES),
        "megabytes": after.ru_maxrss / 1024,
    }


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, resolution, kept = options.one
        print(json.dumps(measure(name, int(resolution), kept == "kept")))
        return
    print(software())
    print("| | usual, ms per image | kept | usual / kept | pages fetched per image | kept | MB | kept |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, resolution in LINES:
        found: dict[str, list[dict[str, float]]] = {"usual": [], "kept": []}
        for _ in range(options.rounds):
            for way, results in found.items():
                command = [sys.executable, __file__, "--one", name, str(resolution), way]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
        middle = {
            way: {key: statistics.median(one[key] for one in results) for key in results[0]}
            for way, results in found.items()
        }
        usual, kept = middle["usual"], middle["kept"]
        print(
            f"| {name}, {resolution} px | {1000 * usual['seconds']:.0f} | {1000 * kept['seconds']:.0f} | "
            f"{usual['seconds'] / kept['seconds']:.2f} | {usual['pages']:,.0f} | {kept['pages']:,.0f} | "
            f"{usual['megabytes']:,.0f} | {kept['megabytes']:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
