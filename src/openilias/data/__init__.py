"""Benchmarks: queries, database partitions, relevance, attributes, taxonomy, boxes."""

from openilias.data.benchmark import Attributes, Benchmark, Item, SourceShard
from openilias.data.ilias import read_ilias
from openilias.data.taxonomy import Taxonomy

__all__ = ["Attributes", "Benchmark", "Item", "SourceShard", "Taxonomy", "read_ilias"]
