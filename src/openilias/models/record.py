"""The records of the zoo: what is known of each model, beside what decides its descriptors."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openilias.models.spec import ModelSpec

Training = Literal["sup", "sup+dist", "ssl", "vla", "dist", "none"]
"""Supervised, with distillation; self-supervised; vision-language alignment; distillation; nothing learned (paper)."""
Descriptor = Literal[
    "class token",
    "attention pooling",
    "mean of patch tokens",
    "mean of the last map",
    "GeM of the last map",
    "regional GeM of the last map",
    "all patch tokens through a head",
    "VLAD of local descriptors",
]
"""Which of the last activations become the descriptor, before a projection if there is one."""


class Record(BaseModel):
    """A model of the zoo.

    Attributes:
        name: how users call it.
        also: other names of the same weights: the paper's, where it differs.
        family: models that were published together.
        kind: of the network, in the words of the paper: ``R50``, ``ViT-L``, ``CN-B``, ...
        year: of publication.
        training: how it was trained.
        dataset: on what.
        data_size: how many images, in words.
        descriptor: what is pooled, and how.
        dims: of the descriptor, measured.
        patch: side of a token in pixels, None without tokens.
        parameters: of what describes an image, measured.
        gflops: of describing one picture of 500 x 375 pixels at test resolution, 1 multiply-add = 1, measured.
        text_parameters: likewise of what describes a text; None if nothing does.
        context: longest text, in tokens.
        tokenizer: of texts: ``built in`` if the library brings it, else the repository of the hub that has it.
        available: whether anybody can fetch the weights, or their authors have to be asked.
        citation: the publication.
        note: what one has to know.
        model: what decides its descriptors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    also: tuple[str, ...] = ()
    family: str
    kind: str
    year: int = Field(ge=1999)
    training: Training
    dataset: str
    data_size: str
    descriptor: Descriptor
    dims: int = Field(ge=1)
    patch: int | None = None
    parameters: int = Field(ge=0)
    gflops: float = Field(ge=0)
    text_parameters: int | None = None
    context: int | None = None
    tokenizer: str | None = None
    available: Literal["public", "on request"] = "public"
    citation: str
    note: str | None = None
    model: ModelSpec

    @model_validator(mode="before")
    @classmethod
    def _named_once(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(fields.get("model"), dict):
            return fields | {"model": {"name": fields.get("name")} | fields["model"]}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.model.name != self.name:
            raise ValueError("the model has another name")
        texts = {value is None for value in (self.text_parameters, self.context, self.tokenizer)}
        if len(texts) > 1:
            raise ValueError("text_parameters, context and tokenizer go together")
        return self

    @property
    def describes_texts(self) -> bool:
        """Whether text queries can be asked."""
        return self.text_parameters is not None


@cache
def records() -> Mapping[str, Record]:
    """Return all records by name, in the order of their files: by kind of training, then by year."""
    found: dict[str, Record] = {}
    for path in sorted(files("openilias.models").joinpath("records").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".toml"):
            for fields in tomllib.loads(path.read_text(encoding="utf-8"))["records"]:
                try:
                    record = Record.model_validate(fields)
                except ValidationError as error:
                    raise ValueError(f"{path.name}, {fields.get('name')}: {error}") from None
                found[record.name] = record
    return MappingProxyType(found)


@cache
def _by_any_name() -> Mapping[str, Record]:
    names = {alias: record for record in records().values() for alias in record.also}
    return MappingProxyType(names | dict(records()))


def find_record(name: str) -> Record | None:
    """Return the record of a name, the paper's or ours; None if there is none."""
    return _by_any_name().get(name.removeprefix("timm:"))
