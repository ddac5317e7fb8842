"""Describing images: the whole pipeline beside the bare model, decoding alone, and plain PyTorch loops.

    python benchmarks/extract.py                                        resnet18 at 384, vit_tiny at 224, on the CPU
    python benchmarks/extract.py --device cuda --precision bfloat16 --workers 16 \
        --models vit_large_patch16_siglip_384:512 vit_base_patch14_dinov2:724 --images 2000

All lines see the same JPEG files, of the shapes of Flickr's "medium" size, one of them broken. Each is measured in a
process of its own, in turns, and the median of the rounds is printed with ratios. Networks have random weights. What
comes out is compared: same order, same image passed over, same descriptors.

    bare model     batches of one shape, ready in memory: the fastest batch size for this machine is ours
    decode         reading, decoding, resizing, in as many processes; nothing else
    fair share     what model and decoding reach together where they share the same cores: 1 / (1 / model + 1 / decode)
    plain loop     a DataLoader with worker processes that gives one image at a time, as its shapes differ
    grouped loop   a DataLoader that gives 128, grouped by shape, as in the official code
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from openilias.core.executors import ordered_map
from openilias.core.manifests import software
from openilias.core.protocol import Protocol
from openilias.data import read_ilias
from openilias.descriptors.extract import TIMEOUT, Options, extract
from openilias.descriptors.pipeline import AHEAD, _jobs, _no_boxes, prepare_job
from openilias.models.network import TorchBackbone
from openilias.models.zoo import find_model, load_model

SHAPES = [((500, 375), 50), ((375, 500), 16), ((500, 333), 14), ((333, 500), 6), ((500, 500), 4), ((500, 281), 3)]
PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bfloat16 TFLOP/s that the vendor states."""


def make(folder: Path, count: int) -> None:
    """Write JPEGs of quality 90, 4:4:4, of about the entropy of photographs; some shapes are those of no other."""
    rng = np.random.default_rng(0)
    sizes = [size for size, share in SHAPES for _ in range(share)]
    (folder / "ilias_core" / "thing_000" / "query").mkdir(parents=True)
    (folder / "ilias_core" / "thing_000" / "pos").mkdir()
    (folder / "distractors").mkdir()
    for number in range(count + 2):
        width, height = sizes[rng.integers(len(sizes))]
        if rng.random() < 0.07:
            height = int(rng.integers(200, 500))
        coarse = rng.integers(0, 256, (height // 25 + 2, width // 25 + 2, 3), dtype=np.uint8)
        base = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)
        name = {0: "ilias_core/thing_000/query/Q000_00.jpg", 1: "ilias_core/thing_000/pos/P000_00.jpg"}
        path = folder / name.get(number, f"distractors/{number:06d}.jpg")
        Image.fromarray(pixels).save(path, "JPEG", quality=90, subsampling=0)
    broken = folder / "distractors" / f"{count // 2:06d}.jpg"
    broken.write_bytes(broken.read_bytes()[:3000])


# --- the lines; each returns (images, seconds, ids, descriptors) ---

Found = tuple[int, float, list[str], Any]


class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What one writes: Pillow and torchvision transforms; a broken image gives None."""

    def __init__(self, paths: list[Path], resolution: int, mean: Any, std: Any) -> None:
        from torchvision import transforms

        self.paths, self.resolution = paths, resolution
        self.after = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[int, torch.Tensor | None]:
        try:
            with Image.open(self.paths[place]) as opened:
                image = opened.convert("RGB")
        except OSError:
            return place, None
        ratio = image.height / image.width
        r = self.resolution
        size = (r, max(1, int(r * ratio))) if ratio <= 1 else (max(1, int(r / ratio)), r)
        return place, self.after(image.resize(size, Image.Resampling.BICUBIC))


def first_of(batch: list[Any]) -> Any:
    return batch[0]


def grouped(batch: list[Any]) -> list[Any]:
    groups = defaultdict(list)
    for place, tensor in batch:
        if tensor is not None:
            groups[tensor.shape].append((place, tensor))
    return [([p for p, _ in group], torch.stack([t for _, t in group])) for group in groups.values()]


def loop(arguments: argparse.Namespace, *, group: bool) -> Found:
    import timm
    import torch.nn.functional as F

    benchmark = read_ilias(arguments.folder)
    items = [item for shard in benchmark.distractor_shards for item in shard.files]
    spec = find_model(arguments.model)
    torch.manual_seed(0)
    more = {"dynamic_img_size": True} if "vit" in arguments.model else {}
    network = timm.create_model(arguments.model, pretrained=False, num_classes=0, **more).eval().to(arguments.device)
    patch = network.patch_embed.patch_size[0] if more else 1
    data = Files([item.path for item in items], arguments.resolution, spec.mean, spec.std)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=128 if group else 1,
        num_workers=arguments.workers,
        collate_fn=grouped if group else first_of,
        pin_memory=arguments.device != "cpu",
    )
    found: dict[int, np.ndarray] = {}
    context = torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.precision == "bfloat16")
    started = time.perf_counter()
    with torch.inference_mode(), context:
        for batch in loader:
            for places, tensors in batch if group else [([batch[0]], None if batch[1] is None else batch[1][None])]:
                if tensors is None:
                    continue
                h, w = -tensors.shape[2] % patch, -tensors.shape[3] % patch
                tensors = F.pad(tensors.to(arguments.device), (w // 2, w - w // 2, h // 2, h - h // 2))
                out = F.normalize(network(tensors).float()).cpu().numpy()
                found.update(zip(places, out, strict=True))
    elapsed = time.perf_counter() - started
    places = sorted(found)
    return len(items), elapsed, [items[place].id for place in places], np.stack([found[place] for place in places])


def backbone_of(arguments: argparse.Namespace) -> TorchBackbone:
    protocol = Protocol(resolution=arguments.resolution, dtype="float32", precision=arguments.precision)
    model = load_model(find_model(arguments.model), protocol, random_weights=0, device=arguments.device)
    assert isinstance(model, TorchBackbone)
    return model


def pipeline(arguments: argparse.Namespace) -> Found:
    benchmark, model = read_ilias(arguments.folder), backbone_of(arguments)
    count = sum(len(shard.files) for shard in benchmark.distractor_shards)
    options = Options(workers=arguments.workers, skip_unreadable=True, batch_size=arguments.batch_size)
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        store = extract(benchmark, model, "distractors", Path(out) / "s", options)
        elapsed = time.perf_counter() - started
        rows = np.concatenate([block.copy() for shard in store.shards for block in shard.blocks()])
        return count, elapsed, [item for shard in store.shards for item in shard.ids()], rows


def decode(arguments: argparse.Namespace) -> Found:
    benchmark, model = read_ilias(arguments.folder), backbone_of(arguments)
    items = [item for shard in benchmark.distractor_shards for item in shard.files]
    with ordered_map(arguments.workers, timeout=TIMEOUT, ahead=AHEAD) as run:
        jobs = list(_jobs(items, model, "distractors", True, _no_boxes))
        list(run(prepare_job, jobs[:4]))  # the processes are there
        started = time.perf_counter()
        for _ in run(prepare_job, jobs):
            pass
        return len(items), time.perf_counter() - started, [], None


def ready(arguments: argparse.Namespace, model: TorchBackbone) -> Iterator[np.ndarray]:
    """Batches of the most frequent shapes, in their proportion."""
    rng, r = np.random.default_rng(0), arguments.resolution
    size = arguments.batch_size or model.batch_size
    for (width, height), share in SHAPES[:4]:
        shape = (int(r * height / width), r) if height <= width else (r, int(r * width / height))
        for _ in range(max(1, round(arguments.images * share / 86 / size))):
            yield rng.integers(0, 256, (size, *shape, 3), dtype=np.uint8)


def bare(arguments: argparse.Namespace) -> Found:
    model = backbone_of(arguments)
    batches = [model._normalised(torch.from_numpy(b).to(model.device)) for b in ready(arguments, model)]
    with torch.inference_mode():
        for batch in batches[:: max(1, len(batches) // 4)]:
            model._vectors(batch).cpu()
        started = time.perf_counter()
        for batch in batches:
            out = model._vectors(batch)
        out.cpu()
    return sum(map(len, batches)), time.perf_counter() - started, [], None


def flops(arguments: argparse.Namespace) -> float:
    """Return the TFLOP of one image of the most frequent shape."""
    from torch.utils.flop_counter import FlopCounterMode

    model = backbone_of(arguments)
    batch = next(ready(arguments, model))[:1]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model._vectors(model._normalised(torch.from_numpy(batch).to(model.device)))
    return counter.get_total_flops() / 1e12


LINES: dict[str, Callable[[argparse.Namespace], Found]] = {
    "bare model": bare,
    "decode": decode,
    "pipeline (ours)": pipeline,
    "plain loop": lambda arguments: loop(arguments, group=False),
    "grouped loop": lambda arguments: loop(arguments, group=True),
}


def one(arguments: argparse.Namespace) -> None:
    """Measure one line in this process and print it as JSON."""
    images, elapsed, ids, rows = LINES[arguments.line](arguments)
    if rows is not None:
        np.save(arguments.folder / f"{arguments.line}.npy", rows)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]
    print(json.dumps({"rate": images / elapsed, "peak": peak / 1024, "rows": len(ids), "ids": digest}))


def measure(folder: Path, name: str, resolution: int, arguments: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, Any]]] = {line: [] for line in LINES}
    for _ in range(arguments.rounds):
        for line in LINES:
            command = [sys.executable, __file__, "--line", line, "--folder", folder, "--model", name]
            command += ["--resolution", resolution, "--workers", arguments.workers, "--images", arguments.images]
            command += ["--device", arguments.device, "--precision", arguments.precision]
            command += [] if arguments.batch_size is None else ["--batch-size", arguments.batch_size]
            out = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            found[line].append(json.loads(out.stdout.splitlines()[-1]))
    rate = {line: statistics.median(run["rate"] for run in runs) for line, runs in found.items()}
    slower = min(rate["bare model"], rate["decode"])
    shared = 1 / (1 / rate["bare model"] + 1 / rate["decode"]) if arguments.device == "cpu" else slower
    ours = rate["pipeline (ours)"]
    print(f"\n{name} at {resolution} px, {arguments.images} images, {arguments.workers} workers")
    for line, runs in found.items():
        span = f"{min(r['rate'] for r in runs):.1f} to {max(r['rate'] for r in runs):.1f}"
        print(
            f"  {line:<16} {rate[line]:8.1f} images/s ({span:<16}) ours x {ours / rate[line]:5.2f}   "
            f"peak of one process {max(r['peak'] for r in runs):5.0f} MB"
        )
    print(f"  {'fair share':<16} {shared:8.1f} images/s {'':<18} ours x {ours / shared:5.2f}")
    print(f"  bottleneck: {'decoding' if rate['decode'] < rate['bare model'] else 'the model'}")
    order = {run["ids"] for line in ("pipeline (ours)", "plain loop", "grouped loop") for run in found[line]}
    rows = [np.load(folder / f"{line}.npy") for line in ("pipeline (ours)", "plain loop", "grouped loop")]
    apart = max(float(np.abs(rows[0] - other).max()) for other in rows[1:])
    print(
        f"  same order and images passed over: {'yes' if len(order) == 1 else 'NO'}; descriptors differ by {apart:.1e}"
    )
    if arguments.device.startswith("cuda"):
        peak = next((v for k, v in PEAK.items() if k in torch.cuda.get_device_name()), None)
        each = flops(argparse.Namespace(**vars(arguments) | {"model": name, "resolution": resolution}))
        share = "" if peak is None else f", {100 * ours * each / peak:.0f} % of the bfloat16 peak of {peak:.0f}"
        print(f"  {each:.3f} TFLOP an image: {ours * each:.0f} TFLOP/s{share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18:384", "vit_tiny_patch16_224:224"])
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    for name in ("--line", "--model"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--resolution", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        one(arguments)
        return
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    print(f"{platform.machine()}, {os.cpu_count()} cores; {versions}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, arguments.images)
        for model in arguments.models:
            name, _, resolution = model.partition(":")
            measure(folder, name, int(resolution), arguments)


if __name__ == "__main__":
    main()
