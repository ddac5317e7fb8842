"""The id lists and the taxonomy as they are published: from what was checked, with official columns only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from openilias.build.publish.checks import STATE, Checked, MiniList, lines_of
from openilias.build.publish.outputs import Done, Output
from openilias.core.errors import OpenIliasError
from openilias.core.ids import object_of
from openilias.data.benchmark import Benchmark
from openilias.data.ilias import DISTRACTORS, IMAGE_QUERIES, LISTS, POSITIVES, TEXT_QUERIES
from openilias.data.published_places import TAXONOMY
from openilias.images.tar_index import scan_once


def write_lists(checked: Checked, output: Output) -> list[Done]:
    """Write all lists."""
    benchmark = checked.benchmark
    done = [
        _write(output, IMAGE_QUERIES, (f"{item},{object_of(item)}" for item in benchmark.image_queries)),
        _write(output, TEXT_QUERIES, iter(benchmark.text_queries)),
        _write(output, POSITIVES, _attributes(benchmark)),
        output.write(f"{LISTS}/{DISTRACTORS}", lambda path: _write_distractors(checked, path)),
    ]
    done += [output.write(f"{LISTS}/{one.name}", partial(_write_mini, one)) for one in checked.minis]
    if benchmark.taxonomy.nodes:
        done.append(output.write_text(TAXONOMY, _taxonomy(benchmark)))
    return done


def _write(output: Output, name: str, lines: Iterator[str]) -> Done:
    return output.write_text(f"{LISTS}/{name}", "".join(f"{line}\n" for line in lines))


def _write_mini(mini: MiniList, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for item in lines_of(mini.path):
            out.write(f"{item}\n")


def _attributes(benchmark: Benchmark) -> Iterator[str]:
    for item in benchmark.positives:
        known = benchmark.attributes[item]
        coverage = "" if known.coverage is None else repr(known.coverage)
        yield f"{item},{coverage},{'' if known.clutter is None else known.clutter}"


def _write_distractors(checked: Checked, path: Path) -> None:
    """Write the ids of all distractors, a shard at a time; no time in the header: the same ids are the same bytes."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        for shard in checked.benchmark.distractor_shards:
            if shard.tar is None:
                raise OpenIliasError("Distractors that are files are not published.", where=shard.name)
            keys = scan_once(shard.tar, checked.root / STATE / "tar_index").index.keys.to_pylist()
            packed.write("".join(f"{shard.name}/{key}\n" for key in keys).encode())


def _taxonomy(benchmark: Benchmark) -> str:
    """Return the taxonomy of the objects that are published."""
    tree: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, (coarse, mid, fine) in benchmark.taxonomy.nodes.items():
        if name in benchmark.relevance:
            tree.setdefault(coarse, {}).setdefault(mid, {}).setdefault(fine, []).append(name)
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
