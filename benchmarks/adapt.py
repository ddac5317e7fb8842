"""Learning the linear adaptation at full size, beside plain PyTorch, and what the machine could do.

    python benchmarks/adapt.py                          191,513 classes, 1,024 to 512 dimensions, batches of 128, CPU
    python benchmarks/adapt.py --device cuda --full     the same on a GPU, and two epochs over a million descriptors
    python benchmarks/adapt.py --quick                  20,000 classes

Both lines read the same batches of the same store, start from the same numbers and learn the same; their losses and
layers are compared afterwards. Each is measured in a process of its own, in turns; medians of the rounds are printed.

    ours         openilias.adapt.ujcds.Training
    plain        nn.Linear, F.normalize, cross_entropy and torch.optim.Adam, with autograd
    plain fused  the same with Adam(fused=True)
    sampled      ours, with 8,192 classes drawn per step: an approximation
    roofline     the longer of the three matrix products that no dense step can do without, and of the bytes that must
                 be moved: the class vectors read for the logits; they and both states of Adam read and written.
                 Both are measured here, with the same shapes: torch.mm, and additions over as many bytes.
                 `in turn` is the sum of both: what can be reached if products and traffic do not overlap.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from openilias.adapt.labelled import Labelled, Rows
from openilias.adapt.ujcds import Settings, Training, planned_bytes
from openilias.core.manifests import software, write_manifest
from openilias.descriptors.store import open_store, write_shard

LINES = ("ours", "plain", "plain fused", "sampled")
SHARD = 50_000


def make(folder: Path, images: int, inputs: int) -> None:
    """Write a store of random descriptors."""
    folder.mkdir(parents=True)
    sources = [f"part{number}" for number in range(-(-images // SHARD))]
    made_from = {"partition": "train", "model": "random", "dims": inputs}
    write_manifest(folder / "manifest.json", kind="descriptor store", made_from=made_from, sources=sources, dims=inputs)
    for number, source in enumerate(sources):
        rows = range(number * SHARD, min(images, (number + 1) * SHARD))
        vectors = np.random.default_rng(number).standard_normal((len(rows), inputs), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = [f"{row}.jpg" for row in rows]
        write_shard(folder, number, source=source, ids=ids, descriptors=vectors.astype(np.float16), skipped=[])


def labelled_of(folder: Path, classes: int) -> Labelled:
    """Give the rows random classes."""
    store = open_store(folder)
    numbers = np.random.default_rng(1).integers(0, classes, store.rows)
    return Labelled(store, np.arange(store.rows), numbers, ("",) * classes)


def settings_of(options: argparse.Namespace, line: str) -> Settings:
    """Return the settings of a line."""
    sampled = min(8192, options.classes // 4) if line == "sampled" else None
    return Settings(dim=options.dim, batch=options.batch, held_out=0, sampled=sampled)


class Plain:
    """The training of the official code, from the same numbers and on the same batches."""

    def __init__(self, training: Training, labelled: Labelled, settings: Settings, device: str, *, fused: bool) -> None:
        self.rows, self.labelled, self.settings, self.device = Rows(labelled.store), labelled, settings, device
        self.layer = torch.nn.Linear(labelled.store.dims, settings.dim, device=device)
        self.classifier = torch.nn.Parameter(training._classifier.weight.clone())
        with torch.no_grad():
            self.layer.weight.copy_(training._weight)
            self.layer.bias.zero_()
        self.optimizer = torch.optim.Adam(
            [*self.layer.parameters(), self.classifier], lr=settings.rate, weight_decay=settings.decay, fused=fused
        )

    def steps(self) -> Any:
        """Yield the loss of each step of the first epoch."""
        order = np.random.default_rng([self.settings.seed, 0]).permutation(len(self.labelled.rows))
        for start in range(0, len(order) - self.settings.batch + 1, self.settings.batch):
            places = order[start : start + self.settings.batch]
            x = torch.from_numpy(self.rows.take(self.labelled.rows[places])).to(self.device)
            y = torch.from_numpy(self.labelled.classes[places]).to(self.device)
            cosines = F.normalize(self.layer(x)) @ F.normalize(self.classifier, dim=1).T
            loss = F.cross_entropy(self.settings.loss.scale * cosines, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield float(loss.detach())


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one line in this process."""
    labelled, settings = labelled_of(options.folder, options.classes), settings_of(options, options.line)
    training = Training(labelled, settings, options.device)
    if options.line.startswith("plain"):
        plain = Plain(training, labelled, settings, options.device, fused=options.line == "plain fused")
        del training
        steps = plain.steps()
    else:
        steps = training.steps()
    losses, times = [], []
    for _ in range(options.warm + options.steps):
        begun = time.perf_counter()
        losses.append(next(steps))  # a Python number: a GPU has finished
        times.append(time.perf_counter() - begun)
    layer = plain.layer.weight.detach().cpu().numpy() if options.line.startswith("plain") else training.layer().weight
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.device != "cpu":
        peak = torch.cuda.max_memory_allocated()
    np.save(options.folder / f"{options.line}.npy", layer)
    return {"seconds": statistics.median(times[options.warm :]), "losses": losses, "peak": peak}


def roofline(options: argparse.Namespace) -> dict[str, float]:
    """Measure the products and the traffic of one step, in seconds."""
    device, shape = options.device, (options.classes, options.dim)
    vectors = torch.randn(options.batch, options.dim, device=device)
    weight, out = torch.randn(shape, device=device), torch.empty(shape, device=device)
    wide = torch.empty(options.batch, options.classes, device=device)
    small = torch.empty(options.batch, options.dim, device=device)
    state = [torch.randn(shape, device=device) for _ in range(2)]

    def products() -> None:
        torch.mm(vectors, weight.T, out=wide)
        torch.mm(wide, weight, out=small)
        torch.mm(wide.T, vectors, out=out)

    def traffic() -> None:
        for array in (weight, *state):
            array.add_(1e-9)  # read and written
        weight.sum()

    return {"products": _median(products, device), "traffic": _median(traffic, device)}


def _median(function: Any, device: str) -> float:
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=191_513)
    parser.add_argument("--inputs", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=200_000, help="of the store; a million with --full")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lines", nargs="+", default=list(LINES))
    parser.add_argument("--full", action="store_true", help="two whole epochs of ours over a million descriptors")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--line", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.classes, options.images, options.rounds = 20_000, 50_000, 2
    if options.line == "roofline":
        print(json.dumps(roofline(options)))
        return
    if options.line:
        print(json.dumps(work(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder) / "store"
        make(options.folder, 1_000_000 if options.full else options.images, options.inputs)
        report(options)
        if options.full:
            whole(options)


def _child(options: argparse.Namespace, line: str) -> Any:
    numbers = ("classes", "inputs", "dim", "batch", "steps", "warm", "device", "folder")
    arguments = [word for name in numbers for word in (f"--{name}", str(getattr(options, name)))]
    command = [sys.executable, __file__, *arguments, "--line", line]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> None:
    """Measure the lines in turns and print them."""
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {options.device}, {software()}")
    if options.device != "cpu":
        print(torch.cuda.get_device_name())
    print(f"{options.classes:,} classes, {options.inputs} to {options.dim} dimensions, batches of {options.batch}")
    labelled = labelled_of(options.folder, options.classes)
    print(f"planned: {planned_bytes(labelled, settings_of(options, 'ours')) / 2**30:.2f} GiB beside the descriptors\n")
    found: dict[str, list[Any]] = {line: [] for line in [*options.lines, "roofline"]}
    for _ in range(options.rounds):
        for line, results in found.items():
            results.append(_child(options, line))
    bounds = {name: statistics.median(r[name] for r in found["roofline"]) for name in ("products", "traffic")}
    best, in_turn = max(bounds.values()), sum(bounds.values())
    seconds = {line: statistics.median(r["seconds"] for r in found[line]) for line in options.lines}
    heads = [f"{'line':12}", f"{'s/step':>8}", f"{'steps/s':>8}", f"{'of roofline':>12}", f"{'of in turn':>11}"]
    print(*heads, f"{'peak GB':>8}", f"{'2 epochs':>9}")
    epochs = 2 * (1_000_000 // options.batch)
    for line, value in seconds.items():
        peak = max(r["peak"] for r in found[line]) / 1e9
        share = "" if line == "sampled" else f"{best / value:12.0%} {in_turn / value:11.0%}"
        print(f"{line:12} {value:8.3f} {1 / value:8.2f} {share:24} {peak:8.2f} {epochs * value / 3600:8.2f}h")
    parts = ", ".join(f"{name} {value:.3f} s" for name, value in bounds.items())
    print(f"roofline     {best:8.3f} {1 / best:8.2f}   {parts}")
    if "ours" in seconds:
        ratios = [f"{line} / ours = {seconds[line] / seconds['ours']:.2f}" for line in seconds if line != "ours"]
        print("\n" + ", ".join(ratios))
        for line in [name for name in seconds if name.startswith("plain")]:
            losses = np.abs(np.subtract(found["ours"][0]["losses"], found[line][0]["losses"])).max()
            layers = [np.load(options.folder / f"{name}.npy") for name in ("ours", line)]
            apart = np.abs(layers[0] - layers[1]).max()
            print(f"ours against {line}: losses within {losses:.1e}, layers within {apart:.1e}")


def whole(options: argparse.Namespace) -> None:
    """Time two whole epochs."""
    labelled = labelled_of(options.folder, options.classes)
    training = Training(labelled, settings_of(options, "ours"), options.device)
    begun = time.perf_counter()
    for _ in training.steps():
        pass
    print(f"\n2 epochs, {training.total:,} steps: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
