"""What is published, and how; everything that changes a published byte and does not lie in the set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from openilias.data.addresses import RefusedAddressError, host_of
from openilias.data.examine import Depth

ALGORITHM_VERSION = 1  # changes when the same set and settings give other bytes


class PublishSettings(BaseModel, frozen=True, extra="forbid"):
    """How a set is published.

    Attributes:
        name: of the set.
        version: of it.
        licence: of the images of the core whose rows state none.
        url_base: where it will lie; the list of checksums has URLs below it. Without it the list has paths.
        shards: hard links, copies, or left where they are and only listed.
        allow_open: publish in spite of open decisions; the datasheet says so.
        allow_unknown_licence: publish in spite of images whose licence nobody knows; the datasheet counts them.
        longest: larger side that an image may have, in pixels.
        quality: of the JPEG that it must be.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,31}$")]
    licence: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    url_base: str | None = None
    shards: Literal["link", "copy", "leave"] = "link"
    allow_open: bool = False
    allow_unknown_licence: bool = False
    longest: Annotated[int, Field(ge=16, le=16384)] = 500
    quality: Annotated[int, Field(ge=1, le=100)] = 90

    @field_validator("url_base")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            host_of(value)
        except RefusedAddressError as error:
            raise ValueError(str(error)) from None
        if set(value) & set("?# \"'<>\\"):
            raise ValueError("give the URL of a folder, without a query or quotes")
        return value.rstrip("/")

    @field_validator("licence")
    @classmethod
    def _is_text(cls, value: str | None) -> str | None:
        if value is not None and (not value.isprintable() or value != value.strip()):
            raise ValueError("a licence is a line of text")
        return value


class CheckSettings(BaseModel, frozen=True, extra="forbid"):
    """How a set is looked at before it is published; changes no published byte.

    Attributes:
        depth: how far distractors are verified; the objects always are as far as their pixels.
    """

    depth: Depth = "pixels"
