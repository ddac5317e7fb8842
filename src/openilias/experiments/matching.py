"""Matches by local descriptors: of two image files, drawn; and of the images of a re-ranked ranking."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes, write_bytes
from openilias.core.progress import tell
from openilias.descriptors.local_store import open_local_store
from openilias.images.decode import MOST_BYTES, decode
from openilias.models.local_backbone import LocalBackbone
from openilias.models.local_features import LocalFeatures
from openilias.models.local_zoo import SIFT
from openilias.report.matches import Pixels, draw_matches
from openilias.report.reranking import Match
from openilias.rerank.similarities import LocalStep, database_of_local
from openilias.rerank.spatial import SpatialSettings, Verified, verify

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_QUALITY = 92


@dataclass(frozen=True, eq=False)
class Matched:
    """How two image files match.

    Attributes:
        query: local descriptors of the first.
        image: of the second.
        found: the pairs that one map explains.
        picture: (h, w, 3) RGB, both with lines between these.
    """

    query: LocalFeatures
    image: LocalFeatures
    found: Verified
    picture: Pixels


def cosine_of(model: str) -> float:
    """Return from which cosine on descriptors of a model match, if nothing is said: those of SIFT are all alike."""
    return 0.9 if model == SIFT else SpatialSettings().cosine


def match_to(
    query: Path,
    image: Path,
    model: LocalBackbone,
    settings: SpatialSettings,
    out: Path,
    *,
    lines: int = 60,
    side: int = 1600,
) -> Matched:
    """Describe two image files, verify them spatially, and write the matches as a picture.

    Args:
        query: the first file.
        image: the second.
        model: describes them.
        settings: of spatial verification.
        out: picture to write, .png or .jpg; one that is there is replaced, other than the two files.
        lines: at most so many are drawn.
        side: larger side of the picture, at most.

    Raises:
        OpenIliasError: a file cannot be read or decoded, or ``out`` has another ending or is one of the files.
    """
    kind = _KINDS.get(out.suffix.lower())
    if kind is None:
        raise OpenIliasError(
            f"Matches are written as .png or .jpg, not as {out.suffix or 'a file without ending'}.",
            where=out,
            fix="Give --out FILE.png.",
        )
    if out.resolve() in (query.resolve(), image.resolve()):
        raise OpenIliasError("This is one of the images that are matched.", where=out, fix="Give another --out.")
    pictures = [_read(path) for path in (query, image)]
    prepare = model.preparation()
    one, other = (model.describe([prepare(picture, ())])[0] for picture in pictures)
    found = verify(one, other, settings)
    left, right = (np.asarray(picture) for picture in pictures)
    drawn = draw_matches(left, right, one.geometry, other.geometry, found.pairs, most=lines, side=side)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, kind, **({"quality": _QUALITY} if kind == "JPEG" else {}))
    write_bytes(out, buffer.getvalue())
    return Matched(one, other, found, drawn)


def _read(path: Path) -> Image.Image:
    try:
        data = read_bytes(path, most=MOST_BYTES)
    except OSError as error:
        raise OpenIliasError(f"This image cannot be read: {error.strerror}.", where=path) from None
    return decode(data, where=str(path))


def match_of(manifest: dict[str, Any]) -> Callable[[str, str], Match] | None:
    """Return how a query and an image match, by their ids; None, told, if the local stores are gone.

    Args:
        manifest: of a re-ranked ranking. Whatever compared the images, what agrees with one map is shown.
    """
    about = manifest["made_from"]["rerank"]["local"]
    step = LocalStep.model_validate({name: about[name] for name in LocalStep.model_fields if name in about})
    try:
        queries, database = (
            [open_local_store(Path(folder)) for folder in manifest["local"][side]] for side in ("queries", "database")
        )
    except (OpenIliasError, KeyError) as error:
        tell(f"report: no matches are drawn, the local descriptors are not where they were ({error})")
        return None
    settings = step.spatial
    if step.method != "spatial":
        described = database[0].manifest["made_from"].get("local", {})
        name = described.get("name", "") if isinstance(described, dict) else ""
        settings = SpatialSettings(scales=True, cosine=cosine_of(name))

    def match(query: str, item: str) -> Match:
        asked = database_of_local(queries, [query]).features(query, step.query_descriptors)
        known = database_of_local(database, [item]).features(item, step.descriptors)
        found = verify(asked, known, settings)
        return Match(asked, known, found.pairs, found.tentative)

    return match
