"""Two image files matched by local descriptors, and their matches drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes, write_bytes
from openilias.images.decode import MOST_BYTES, decode
from openilias.models.local_backbone import LocalBackbone
from openilias.models.local_features import LocalFeatures
from openilias.models.local_zoo import SIFT
from openilias.report.matches import Pixels, draw_matches
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
