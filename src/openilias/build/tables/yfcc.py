"""The published metadata of YFCC100M: a line a photo or video, tab-separated, in one of two layouts.

The 23 columns of the original release (Thomee et al., "YFCC100M: The new data in multimedia research", 2016) are named
in :data:`COLUMNS`. The later release has 25: the line number before the first, and a hash behind it. Fields that users
wrote are URL-encoded, with ``+`` for blanks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_plus

from openilias.build.tables.rows import Bad, Position, Row, Video, clean, is_url

Layout = Literal[23, 25]

COLUMNS = (
    "photo/video identifier", "user NSID", "user nickname", "date taken", "date uploaded", "capture device", "title",
    "description", "user tags", "machine tags", "longitude", "latitude", "accuracy", "page URL", "download URL",
    "licence name", "licence URL", "server identifier", "farm identifier", "secret", "secret of the original",
    "extension of the original", "photo/video marker",
)  # fmt: skip

# Of the original release.
_NICKNAME, _TAKEN, _DEVICE, _PAGE, _DOWNLOAD, _LICENCE, _LICENCE_URL, _SERVER, _SECRET, _MARKER = (
    2, 3, 5, 13, 14, 15, 16, 17, 19, 22,
)  # fmt: skip
_HASH = re.compile(rb"[0-9a-f]{16,32}")
_SECRET_OF = re.compile(rb"[0-9a-f]{1,32}")
_SHORT = 200  # bytes of a field that is kept in memory
_FLICKR = "https://live.staticflickr.com"
_S3 = "https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images"


def layout_of(line: bytes) -> Layout | None:
    """Return which layout a line has; None if it has neither.

    Besides the number of columns the marker is looked at, and that ids are numbers.
    """
    fields = line.split(b"\t")
    if len(fields) == 25 and fields[0].isdigit() and fields[1].isdigit() and fields[24] in (b"0", b"1"):
        return 25
    if len(fields) == 23 and fields[0].isdigit() and fields[22] in (b"0", b"1"):
        return 23
    return None


def hash_of(download_url: str) -> str:
    """Return the hash by which the public S3 bucket names a photo: the MD5 of its download URL as published.

    Each byte is written without its leading zero, so that it may have less than 32 digits, as published ones do
    (``010a074acb1975c4d6d6e43c1faeb8``). The rule is that of several public programs that downloaded all of it, and the
    hash of the first photo, http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg, is
    4e2f7a26a1dfbf165a7e30bdabf7e72a.
    """
    digest = hashlib.md5(download_url.encode(), usedforsecurity=False).digest()
    return "".join(f"{byte:x}" for byte in digest)


def s3_url(photo_hash: str) -> str:
    """Return where the public S3 bucket has a photo: two folders of three digits of its hash each."""
    return f"{_S3}/{photo_hash[:3]}/{photo_hash[3:6]}/{photo_hash}.jpg"


def medium_url(server: str, photo: str, secret: str) -> str:
    """Return Flickr's URL of a photo with a larger side of 500 px, the size that the paper took.

    The "unique URL format for 500px size" of https://www.flickr.com/services/api/misc.urls.html.
    """
    return f"{_FLICKR}/{server}/{photo}_{secret}.jpg"


def parse_line(line: bytes, layout: Layout, *, where: str, after: Position) -> Row | Video | Bad:
    """Read one line. A photo without any usable URL, or a line that is not of the layout, is bad.

    Args:
        line: without its end. Only fields that are used need be text: a description may be what it likes.
        layout: of the file.
        where: the file and line.
        after: where the next line begins.
    """
    fields = line.split(b"\t")
    if len(fields) != layout:
        return Bad(f"it has {len(fields)} columns instead of {layout}", where, after)
    stated = None
    if layout == 25:
        stated, fields = fields[2], [fields[1], *fields[3:]]
    photo, marker = fields[0], fields[_MARKER]
    if not photo.isdigit() or len(photo) > 20:
        return Bad(f"its identifier {_shown(photo)} is not a number", where, after)
    name = photo.decode("ascii")
    if marker == b"1":
        return Video(name, where, after)
    if marker != b"0":
        return Bad(f"its marker {_shown(marker)} is neither 0 nor 1", where, after)
    urls = _urls(name, fields, stated)
    if not urls:
        return Bad("no URL can be made of it", where, after)
    taken = _text(fields[_TAKEN])
    return Row(
        name,
        urls,
        _often(fields[_LICENCE]),
        _often(fields[_LICENCE_URL]),
        _often(fields[_NICKNAME]),
        _text(fields[_PAGE]),
        _often(fields[_DEVICE]),
        taken.removesuffix(".0") if taken else None,
        where,
        after,
    )


def _urls(name: str, fields: Sequence[bytes], stated: bytes | None) -> tuple[str, ...]:
    """Return the candidates: medium of Flickr, the published download URL, the public S3 bucket."""
    urls = []
    server, secret = fields[_SERVER], fields[_SECRET]
    if server.isdigit() and len(server) <= 10 and _SECRET_OF.fullmatch(secret):
        urls.append(medium_url(server.decode("ascii"), name, secret.decode("ascii")))
    try:
        published = fields[_DOWNLOAD].decode("utf-8")
    except UnicodeDecodeError:
        published = ""
    if is_url(published):
        urls.append(published)
    if stated is not None and _HASH.fullmatch(stated):
        urls.append(s3_url(stated.decode("ascii")))
    elif is_url(published):
        urls.append(s3_url(hash_of(published)))
    return tuple(dict.fromkeys(urls))


def _text(field: bytes) -> str | None:
    text = field.decode("utf-8", "replace")
    return clean(unquote_plus(text) if "%" in text or "+" in text else text)


def _often(field: bytes) -> str | None:
    """Read a field that many lines have in common: licences, cameras, the photos of one user follow each other."""
    return _kept(field) if len(field) <= _SHORT else _text(field)


_kept = lru_cache(maxsize=10_000)(_text)


def _shown(field: bytes) -> str:
    return ascii(field[:40].decode("latin-1"))
