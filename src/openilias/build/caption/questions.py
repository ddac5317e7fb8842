"""What is asked of a model about each object: the paper's prompt, one query image, the category."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from openilias.build.caption.place import Place
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes
from openilias.core.fingerprints import fingerprint
from openilias.core.ids import object_of
from openilias.data.taxonomy import UNASSIGNED, Taxonomy
from openilias.images.decode import MOST_BYTES, upright_size

PROMPT = (
    "You are a system generating descriptions of objects shown in an image. Provided with an image and a category in "
    "which the item shown in the image belongs to, you will describe the main item that you see in the image, giving "
    "enough details to unambiguously describe the object. You can describe unambiguously what the item is and its "
    "material, color, and style if clearly identifiable. Please do not describe anything about the background."
)
"""Fig. B of the paper, word for word."""
_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}

Detail = Literal["auto", "low", "high"]
LimitField = Literal["max_tokens", "max_completion_tokens"]


class Settings(BaseModel):
    """What an answer depends on besides image and category.

    Attributes:
        model: its name at the endpoint, or that of a local one with its commit and the digest of its weights.
        prompt: the system message.
        temperature: of the sampling; None leaves it to the model.
        seed: likewise.
        max_tokens: of an answer.
        limit_field: the name by which the endpoint knows ``max_tokens``: models that reason want the longer one.
        detail: at which the endpoint looks at the image; ``auto`` leaves it to the endpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=300)
    prompt: str = Field(default=PROMPT, min_length=1)
    temperature: float | None = Field(default=0.0, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(default=0, ge=0, le=2**31 - 1)
    max_tokens: int = Field(default=300, ge=1, le=100_000)
    limit_field: LimitField = "max_tokens"
    detail: Detail = "auto"


@dataclass(frozen=True)
class Question:
    """An object, the image of it that is shown, and its category.

    Attributes:
        object: its name.
        image: id of its first query image.
        sha256: of the stored file.
        category: mid level of the taxonomy, else coarse level; None if it is assigned to neither.
        size: width and height of the image in pixels.
        type: media type of the stored file.
    """

    object: str
    image: str
    sha256: str
    category: str | None
    size: tuple[int, int]
    type: str

    @property
    def words(self) -> str | None:
        """What the user message says beside the image."""
        return None if self.category is None else f"Category: {self.category}"

    def fingerprint(self, settings: Settings) -> str:
        """Return what tells this request from all others; where it is sent is no part of it."""
        return fingerprint(
            {"object": self.object, "image": self.sha256, "words": self.words, **settings.model_dump(mode="json")}
        )


def category_of(taxonomy: Taxonomy, name: str) -> str | None:
    """Return the category that the model is told: mid level, else coarse level, None if neither is assigned.

    Categories are written in words: ``duffel_bag`` is told as ``duffel bag``.
    """
    coarse, mid, _ = taxonomy.nodes.get(name, (UNASSIGNED, UNASSIGNED, UNASSIGNED))
    named = next((level for level in (mid, coarse) if level.strip() and level != UNASSIGNED), None)
    return None if named is None else named.replace("_", " ").strip()


def questions_of(place: Place, objects: Iterable[str] | None = None) -> tuple[Question, ...]:
    """Return a question for each object that has a query image, sorted by object.

    Args:
        place: the set.
        objects: only these.

    Raises:
        OpenIliasError: there is none, one of ``objects`` is not there, or an image cannot be read.
    """
    first = first_images(place)
    if not first:
        raise OpenIliasError("No object of this set has a query image.", where=place.core, fix="Collect them first.")
    wanted = sorted(set(objects)) if objects is not None else sorted(first)
    lost = [name for name in wanted if name not in first]
    if lost:
        raise OpenIliasError(
            f"No such objects with a query image: {first_few(lost)}.", where=place.core, fix="Check their names."
        )
    return tuple(_question(place, name, first[name]) for name in wanted)


def first_images(place: Place) -> dict[str, str]:
    """Return the first query image of each object by id."""
    first: dict[str, str] = {}
    for item in sorted(place.benchmark.image_queries):
        first.setdefault(object_of(item), item)
    return first


def _question(place: Place, name: str, image: str) -> Question:
    data = image_bytes(place, image)
    size = upright_size(data, where=image)
    with Image.open(io.BytesIO(data)) as picture:
        kind = _TYPES.get(picture.format or "")
    if kind is None:
        raise OpenIliasError("No endpoint takes an image of this format.", where=image, fix="Store it as JPEG.")
    digest = hashlib.sha256(data).hexdigest()
    return Question(name, image, digest, category_of(place.benchmark.taxonomy, name), size, kind)


def image_bytes(place: Place, image: str) -> bytes:
    """Return the stored file of an image.

    Raises:
        OpenIliasError: it cannot be read.
    """
    path = place.benchmark.path_of(image)
    try:
        return read_bytes(path, most=MOST_BYTES)
    except OSError as error:
        raise OpenIliasError(
            f"This query image cannot be read: {error.strerror}.", where=path, fix="Complete the set."
        ) from None


def messages_of(question: Question, settings: Settings, data: bytes) -> list[dict[str, Any]]:
    """Return the messages of a request: the prompt, then the stored image as it is, and the category."""
    picture: dict[str, Any] = {"url": f"data:{question.type};base64,{base64.b64encode(data).decode()}"}
    if settings.detail != "auto":
        picture["detail"] = settings.detail
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": picture}]
    if question.words is not None:
        content.append({"type": "text", "text": question.words})
    return [{"role": "system", "content": settings.prompt}, {"role": "user", "content": content}]
