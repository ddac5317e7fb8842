"""The experiment file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition
from openilias.core.protocol import OF_SEARCH, Protocol
from openilias.experiments.adapting import AdaptStep
from openilias.experiments.rerank_step import FILES as RERANK_FILES
from openilias.experiments.rerank_step import RerankStep
from openilias.models.sift_vlad import SiftVladSettings
from openilias.search.indexes import IndexSpec


class FitStep(SiftVladSettings):
    """Fit ``sift_vlad`` on a partition of the benchmark before anything else."""

    partition: Partition = "distractors"

    def settings(self) -> SiftVladSettings:
        """Return the settings without the partition."""
        return SiftVladSettings.model_validate(self.model_dump(exclude={"partition"}))


class SearchStep(BaseModel):
    """How many images are retrieved; the ``k`` of the protocol by default, and never fewer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int | None = Field(default=None, ge=1)


class CompressStep(BaseModel):
    """A search of a compressed index, compared with the exact one: the fields of :class:`IndexSpec`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str
    params: str = ""
    rescore: int = 0
    train: int | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _known(self) -> CompressStep:
        try:
            self.spec()
        except OpenIliasError as error:
            raise ValueError(f"{error.what} {error.fix or ''}".strip()) from None
        return self

    def spec(self) -> IndexSpec:
        """Return it as a value of the search."""
        return IndexSpec(self.index, self.params, self.rescore, self.train, self.seed)


class Experiment(BaseModel):
    """One run, or, with ``matrix``, one for every combination of the listed values.

    Attributes:
        benchmark: folder in the ILIAS layout.
        model: name.
        weights: local file, instead of the published weights.
        random_weights: seed, for no weights at all.
        text_weights: local file of the text tower, where it is not in the weights of the image tower.
        tokenizer: folder of the tokenizer's files, instead of the hub's.
        fit: fit ``sift_vlad`` first; excludes ``weights``.
        adapt: a linear layer between the descriptors and the search.
        queries: of which kind.
        protocol: all that the numbers depend on.
        search: how deep.
        rerank: re-ranking of the shortlists by local descriptors.
        compress: compressed indexes to search besides.
        allow_missing: count queries without a result as zero.
        partial_database: accept that the benchmark's distractors are not here.
        skip_unreadable: list images that cannot be decoded and go on.
        out: folder of the run.
        stores: folder of the descriptors; by default that of the run, and one for all runs of a matrix that search the
            same descriptors.
        table: the table of the paper that the runs of a matrix make, shown at the end with the published numbers.
        matrix: dotted field -> values; of a field with fields a value may name some, and the others stay.
        variants: name -> dotted fields and their values; a run for each, times the matrix.
        variant: the name of this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: Path
    model: str
    weights: Path | None = None
    random_weights: int | None = Field(default=None, ge=0, le=2**32 - 1)
    text_weights: Path | None = None
    tokenizer: Path | None = None
    fit: FitStep | None = None
    adapt: AdaptStep | None = None
    queries: Literal["image", "text", "both"] = "image"
    protocol: Protocol = Protocol()
    search: SearchStep = SearchStep()
    rerank: RerankStep | None = None
    compress: tuple[CompressStep, ...] = ()
    allow_missing: bool = False
    partial_database: bool = False
    skip_unreadable: bool = False
    out: Path
    stores: Path | None = None
    table: Literal["C", "D", "E", "4", "F", "dimensions", "seeds", "boxes", "views"] | None = None
    matrix: dict[str, list[Any]] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    variant: str | None = None

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Experiment:
        given = [name for name in ("weights", "random_weights", "fit") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of {' and '.join(given)} can be given")
        if self.fit is not None and self.model != "sift_vlad" and "model" not in self.matrix:
            raise ValueError("only the model sift_vlad is fitted")
        if not self.out.name:
            raise ValueError("out must name a folder")
        if self.fit is not None and self.stores is not None:
            raise ValueError("a fitted model lies in its run: leave stores out")
        if self.search.k is not None and self.search.k < self.protocol.k:
            raise ValueError("search.k must not be smaller than protocol.k")
        if any(0 < step.rescore < self.depth for step in self.compress):
            raise ValueError(f"compress: rescore must not be smaller than the depth of the search, {self.depth}")
        if self.compress and (self.protocol.duplicates == "remove" or self.protocol.self_matches == "remove"):
            raise ValueError(
                "compress: a compressed search keeps duplicates and self-matches; the protocol removes them"
            )
        if self.compress and self.protocol.expand is not None:
            raise ValueError("compress: a compressed search has no query expansion; the protocol asks for it")
        if self.reranks is not None and self.queries != "image":
            raise ValueError("rerank: texts have no local descriptors; queries must be image")
        if self.reranks is not None and self.compress:
            raise ValueError("rerank: a compressed search is compared with the exact one, not with a re-ranked one")
        if len({step.spec().name for step in self.compress}) < len(self.compress):
            raise ValueError("compress lists one index twice")
        return self

    @property
    def reranks(self) -> RerankStep | None:
        """The re-ranking, if there is one."""
        return None if self.rerank is None or self.rerank.method == "none" else self.rerank

    @property
    def depth(self) -> int:
        """How many images are retrieved per query."""
        return self.search.k or self.protocol.k


class _UniqueKeys(yaml.SafeLoader):
    """Reads plain values only, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if not key.tag.endswith(":merge")]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice")
        return super().construct_mapping(node, deep)


_READY = "ready:"
_PATHS = (
    *("benchmark", "weights", "text_weights", "tokenizer", "out", "stores"),
    *("adapt.file", "adapt.train", "adapt.images"),
    *(f"rerank.{name}" for name in RERANK_FILES),
)
_AFTER = frozenset({"adapt", "search", "rerank", "compress", "queries", "allow_missing", "partial_database", "table"})


def ready_experiments() -> list[str]:
    """Return the names of the experiment files that come with the package; ``ready:NAME`` stands for the file."""
    return sorted(path.stem for path in (Path(__file__).parent / "ready").glob("*.yaml"))


def _file_of(path: Path) -> Path:
    name = str(path)
    if not name.startswith(_READY):
        return path
    known = ready_experiments()
    if name.removeprefix(_READY) not in known:
        raise OpenIliasError(f"There is no ready experiment {name!r}.", fix=f"There are: {', '.join(known)}.")
    return Path(__file__).parent / "ready" / f"{name.removeprefix(_READY)}.yaml"


def read_experiment(path: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> list[Experiment]:
    """Read an experiment file and multiply its matrix out.

    Paths in the file are relative to its folder. With a matrix each run goes to a folder of its own in ``out``,
    named after its values.

    Args:
        path: the file, or ``ready:NAME``.
        changes: dotted fields that replace those of the file; their paths are relative to the working folder.

    Raises:
        OpenIliasError: not YAML, an unknown key, or a value out of range; all of them are named.
    """
    asked, path = path, _file_of(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OpenIliasError(f"This experiment file cannot be read: {error}.", where=path) from None
    if not isinstance(value, dict):
        raise OpenIliasError("An experiment file is a list of 'key: value' lines.", where=path, fix="See the README.")
    open_ended = {"benchmark", "out", *(("adapt.train",) if "adapt" in value else ())} if path != asked else set()
    left = open_ended - set(_by_field(changes))
    if left:
        raise OpenIliasError(
            f"{asked} leaves open: {', '.join(sorted(left))}.",
            fix="Give --benchmark DIR, --out DIR and, if it is asked for, --set adapt.train=LIST.",
        )
    for key, changed in _by_field(changes).items():
        here = str(Path(changed).resolve()) if key in _PATHS and isinstance(changed, str) else changed
        value = value | {key: here} if key == "matrix" else _with(value, key.split("."), here, path)
    return [_anchored(experiment, path.resolve().parent) for experiment in _expand(value, path)]


def _by_field(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``adapt: {train: x}`` as ``adapt.train: x``."""
    single: dict[str, Any] = {}
    for key, changed in changes.items():
        fields = changed if key == "adapt" and isinstance(changed, dict) else None
        single |= {key: changed} if fields is None else {f"{key}.{name}": inner for name, inner in fields.items()}
    return single


def _expand(value: dict[str, Any], path: Path) -> list[Experiment]:
    whole = _validated(value, path)
    if whole.variant is not None:
        raise OpenIliasError("A run is given its variant by the table of variants.", where=path, fix="Leave it out.")
    if not whole.matrix and not whole.variants:
        return [whole]
    empty = [key for key, values in whole.matrix.items() if not values]
    if empty:
        raise OpenIliasError(f"The matrix lists no values of {', '.join(empty)}.", where=path)
    runs = []
    names: list[str | None] = list(whole.variants) or [None]
    for *values, name in itertools.product(*whole.matrix.values(), names):
        single = {key: inner for key, inner in value.items() if key not in ("matrix", "variants")}
        varied = {} if name is None else whole.variants[name]
        for key, chosen in (*zip(whole.matrix, values, strict=True), *varied.items()):
            single = _with(single, key.split("."), chosen, path)
        if single.get("model") != "sift_vlad":
            single.pop("fit", None)  # there is nothing to fit for the other models of a matrix
        chosen_values = dict(zip(whole.matrix, values, strict=True))
        described = {key: chosen for key, chosen in chosen_values.items() if not _after_description(key)}
        if name is not None:
            single["variant"] = chosen_values["variant"] = name
            described |= {} if all(map(_after_description, varied)) else {"variant": name}
        single["out"] = str(Path(value["out"]) / _label(chosen_values))
        if len(described) < len(chosen_values) and "fit" not in single:
            folder = Path(value.get("stores") or Path(value["out"]) / "stores")
            single["stores"] = str(folder / _label(described) if described else folder)
        runs.append(_validated(single, path))
    if len({run.out for run in runs}) < len(runs):
        raise OpenIliasError("Two runs of the matrix have the same values.", where=path, fix="List each value once.")
    return runs


def _label(values: dict[str, Any]) -> str:
    """Name the folder of a run after its values."""
    single: dict[str, Any] = {}
    for key, chosen in values.items():
        single |= {f"{key}.{name}": v for name, v in chosen.items()} if isinstance(chosen, dict) else {key: chosen}
    if "variant" in single and len(single) == 1:
        return _word(single["variant"]).replace("/", "_")
    return ",".join(f"{key}={_word(chosen)}" for key, chosen in single.items()).replace("/", "_")


def _word(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _after_description(key: str) -> bool:
    """Tell whether no descriptor depends on a field."""
    return key.split(".")[0] in _AFTER or key in {f"protocol.{name}" for name in OF_SEARCH}


def _with(value: dict[str, Any], keys: list[str], chosen: Any, path: Path) -> dict[str, Any]:
    if len(keys) == 1:
        before = value.get(keys[0])
        if isinstance(before, dict) and isinstance(chosen, dict):
            chosen = before | chosen  # of several fields the others stay
        return value | {keys[0]: chosen}
    inner = value.get(keys[0]) or {}
    if not isinstance(inner, dict):
        raise OpenIliasError(f"The matrix varies {keys[0]}.{keys[1]}, but {keys[0]} has no fields.", where=path)
    return value | {keys[0]: _with(inner, keys[1:], chosen, path)}


def _validated(value: dict[str, Any], path: Path) -> Experiment:
    try:
        return Experiment.model_validate(value)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'experiment'}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise OpenIliasError(
            "This experiment is not valid:\n    " + "\n    ".join(problems),
            where=path,
            fix="Correct the file.",
        ) from None


def _anchored(experiment: Experiment, folder: Path) -> Experiment:
    given = {name: getattr(experiment, name) for name in _PATHS if "." not in name}
    update: dict[str, Any] = {name: folder / path for name, path in given.items() if path is not None}
    if experiment.adapt is not None:
        update["adapt"] = experiment.adapt.anchored(folder)
    if experiment.rerank is not None:
        update["rerank"] = experiment.rerank.anchored(folder)
    return experiment.model_copy(update=update)
