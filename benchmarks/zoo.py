"""Images per second of the whole zoo at test resolution, with random weights: the network alone, and with its input.

    python benchmarks/zoo.py --device cuda --precision float16        # a table in Markdown
    python benchmarks/zoo.py --family siglip --batch-size 4

Each model describes the same pictures of 500 x 375 pixels in batches. Beside it stand the operations that this takes,
and the share of the peak of the device that is reached, where the peak is given with ``--peak-tflops``.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time

import numpy as np
import torch
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.check import made_up_picture
from openilias.models.measure import PICTURE
from openilias.models.record import Record, records
from openilias.models.zoo import load_model


def measured(record: Record, args: argparse.Namespace, picture: Image.Image) -> float:
    """Return the median seconds of describing one batch."""
    protocol = Protocol(precision=args.precision, dtype="float32")
    backbone = load_model(record.model, protocol, random_weights=0, device=args.device)
    batch = np.stack([backbone.prepare(picture)] * args.batch_size)
    seconds = []
    for _ in range(args.rounds + 1):
        started = time.perf_counter()
        backbone.encode_images(batch)  # its result is on the CPU: the device has finished
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])  # the first makes kernels and positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--family", default="", help="only families with this in their name")
    parser.add_argument("--max-params", type=float, default=float("inf"), help="millions")
    parser.add_argument("--peak-tflops", type=float, help="of the device in this precision, a multiply-add being two")
    args = parser.parse_args()
    name = torch.cuda.get_device_name(0) if args.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    print(f"{args.device}, {name}; torch {torch.__version__}; {args.precision}; batches of {args.batch_size}\n")
    print("| model | px | M params | GFLOPs | images/s | TFLOP/s | share of the peak |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    picture = made_up_picture(np.random.default_rng(0), *PICTURE)
    for record in records().values():
        if record.model.weights == "fit" or args.family.lower() not in record.family.lower():
            continue
        if record.parameters > args.max_params * 1e6:
            continue
        try:
            rate = args.batch_size / measured(record, args, picture)
        except (OpenIliasError, torch.OutOfMemoryError) as error:
            print(f"| {record.name} | | | | {type(error).__name__}: {str(error).splitlines()[0]} | | |", flush=True)
            continue
        finally:
            gc.collect()
        flops = 2e9 * record.gflops * rate
        share = f"{100 * flops / args.peak_tflops / 1e12:.0f} %" if args.peak_tflops else ""
        print(
            f"| {record.name} | {record.model.test_resolution} | {record.parameters / 1e6:.0f} | {record.gflops:.0f} | "
            f"{rate:.1f} | {flops / 1e12:.2f} | {share} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
