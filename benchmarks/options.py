"""What the options of the protocol are worth: mAP@1k on a benchmark of photographs, as a table.

    python benchmarks/options.py BENCHMARK --weights DIR [--out docs/options.md]

Every line changes one thing of the first: 384 pixels, larger side, GeM. `DIR` holds the files
`mobilenetv2_100_tf_in1k.safetensors` and `tf_efficientnet_lite0_features.safetensors`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.ids import DATABASE_PARTITIONS, Partition
from openilias.core.protocol import OFFICIAL_SCALES, Protocol
from openilias.data import Benchmark, read_ilias
from openilias.descriptors.extract import extract
from openilias.evaluate.evaluation import evaluate
from openilias.models.backbone import Backbone
from openilias.models.zoo import find_model, load_model
from openilias.search.exact import topk
from openilias.search.ranking import Ranking

MODELS = {
    "MobileNetV2": ("mobilenetv2_100.tf_in1k", "mobilenetv2_100_tf_in1k.safetensors"),
    "EfficientNet-Lite0": ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors"),
}
TURNS = (0, 90, 180, 270)
LINES: list[tuple[str, dict[str, Any]]] = [
    ("384 px, larger side, GeM", {}),
    *((f"pooling {name}", {"pooling": name}) for name in ("head", "gap", "mac", "rmac", "rgem")),
    *((f"{size} px", {"resolution": size}) for size in (224, 512, 724)),
    *((f"resize {rule}", {"resize": rule}) for rule in ("small", "center", "square", "pad")),
    ("zeros around up to 384 px (min_size)", {"min_size": 384}),
    ("resized by torchvision", {"resizer": "torchvision"}),
    ("bfloat16", {"precision": "bfloat16"}),
    ("3 scales, queries only", {"scales": OFFICIAL_SCALES, "views": "queries"}),
    ("3 scales, all images", {"scales": OFFICIAL_SCALES}),
    ("4 rotations, queries only", {"rotations": TURNS, "views": "queries"}),
    ("4 rotations, all images", {"rotations": TURNS}),
    ("3 scales x 4 rotations, queries only", {"scales": OFFICIAL_SCALES, "rotations": TURNS, "views": "queries"}),
    ("positives masked", {"positive_boxes": "mask"}),
    ("positives cropped", {"positive_boxes": "crop"}),
    ("positives masked and cropped", {"positive_boxes": "mask+crop"}),
    ("queries cropped", {"query_boxes": "crop"}),
    ("queries and positives cropped", {"query_boxes": "crop", "positive_boxes": "crop"}),
]


Described = tuple[list[str], np.ndarray]


def described(benchmark: Benchmark, model: Backbone, partition: Partition, kept: dict[str, Described]) -> Described:
    """Return ids and descriptors; what an option does not concern is described once."""
    protocol = model.protocol
    plain = {"query_boxes": "none", "positive_boxes": "none", "scales": (1.0,), "rotations": (0,), "views": "all"}
    key = (
        f"{partition} {protocol.boxes_of(partition)} {protocol.views_of(partition)} {protocol.model_copy(update=plain)}"
    )
    if key not in kept:
        with tempfile.TemporaryDirectory() as temporary:
            store = extract(benchmark, model, partition, Path(temporary) / "store")
            rows = np.concatenate([block for shard in store.shards for block in shard.blocks()])
            kept[key] = [item for shard in store.shards for item in shard.ids()], rows
    return kept[key]


def value_of(
    benchmark: Benchmark, name: str, weights: Path, fields: dict[str, Any], kept: dict[str, Described]
) -> float:
    """Return mAP@1k in percent."""
    protocol = Protocol.model_validate({"resolution": 384, "pooling": "gem"} | fields)
    model = load_model(find_model(name), protocol, weights=weights)
    queries, asked = described(benchmark, model, "image_queries", kept)
    parts = [described(benchmark, model, part, kept) for part in DATABASE_PARTITIONS]
    rows, scores = topk(asked, [block for _, block in parts], protocol.k)
    ids = tuple(item for part, _ in parts for item in part)
    return 100 * evaluate(Ranking(tuple(queries), ids, rows, scores), benchmark, protocol).map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--lines", nargs="+", help="beginnings of the lines to measure; all by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    benchmark = read_ilias(arguments.benchmark)
    size = sum(len(shard.items()) for shard in benchmark.distractor_shards) + len(benchmark.positives)
    head = [
        f"mAP@1k in %, {len(benchmark.image_queries)} queries, {size} database images.",
        "",
        "| | " + " | ".join(arguments.models) + " |",
        "|---|" + "---|" * len(arguments.models),
    ]
    lines: list[str] = []
    kept: dict[str, dict[str, Described]] = {model: {} for model in arguments.models}
    for label, fields in LINES:
        if arguments.lines and not label.startswith(tuple(arguments.lines)):
            continue
        started = time.perf_counter()
        found = []
        for model in arguments.models:
            name, file = MODELS[model]
            found.append(value_of(benchmark, name, arguments.weights / file, fields, kept[model]))
        lines.append(f"| {label} | " + " | ".join(f"{value:.1f}" for value in found) + " |")
        print(f"{lines[-1]}  {time.perf_counter() - started:.0f} s", flush=True)
        if arguments.out is not None:
            arguments.out.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
