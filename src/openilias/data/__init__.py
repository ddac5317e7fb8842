"""Benchmarks: queries, database partitions, relevance, attributes, taxonomy, boxes."""

from openilias.data.benchmark import Benchmark, Item, SourceShard
from openilias.data.ilias import read_ilias
from openilias.data.lists import Attributes
from openilias.data.taxonomy import Taxonomy
from openilias.data.training import TrainingSet, read_training_set

__all__ = [
    "Attributes",
    "Benchmark",
    "Item",
    "SourceShard",
    "Taxonomy",
    "TrainingSet",
    "read_ilias",
    "read_training_set",
]
