"""The words that say what became of a row of a table."""

from __future__ import annotations

from collections.abc import Sequence

from openilias.build.stored import STORED
from openilias.core.errors import OpenIliasError

STATUSES = {
    STORED: "it is in the shard",
    "gone": "the server has no such image: 404, 410, or the picture that Flickr shows instead",
    "forbidden": "401 or 403",
    "http-error": "another answer that is no image, such as 400 or 204",
    "refused": "a private address, a redirect to one, too many redirects, another scheme, packed content",
    "too-large": "more bytes than are taken, or no end within the time",
    "busy": "429, 408 or 425, again and again",
    "server-error": "500 and above, again and again",
    "timeout": "nothing came, or too little",
    "no-connection": "no such host, no connection, or it was reset before an answer",
    "broken-off": "the answer ended before its end, or is no HTTP",
    "empty": "no bytes",
    "not-an-image": "HTML, SVG, JSON, or nothing that is known",
    "other-format": "a picture of a format that is not read: TIFF, HEIF, ...",
    "truncated": "the end of the image file is missing",
    "damaged": "it cannot be decoded",
    "bomb": "too many pixels, or too much work",
    "too-small": "a smaller side below the least",
    "crash": "the decoder crashed",
    "hang": "the decoder took too long",
    "skipped": "all of its URLs are of hosts that were left out",
    "duplicate-id": "an earlier row has this id",
    "bad-row": "the record of the table cannot be used",
}
"""Status -> what it says."""

ALL_FAILED = "all-failed"
FOR_A_TIME = frozenset(("busy", "server-error", "timeout", "no-connection", "broken-off"))
"""What a later try may change although nobody has changed the image."""
OF_THE_TABLE = frozenset(("duplicate-id", "bad-row"))
"""What no server can change."""


def parse_retry(words: Sequence[str]) -> frozenset[str]:
    """Return the statuses that are asked again.

    Raises:
        OpenIliasError: there is no such status, or no retry can change it.
    """
    failed = frozenset(STATUSES) - OF_THE_TABLE - {STORED}
    chosen: set[str] = set()
    for word in words:
        if word != ALL_FAILED and word not in failed:
            known = ", ".join(status for status in STATUSES if status in failed)
            what = "can be retried by nobody" if word in STATUSES else "is no status"
            raise OpenIliasError(f"{word!r} {what}.", fix=f"Give {ALL_FAILED}, or one of {known}.")
        chosen |= failed if word == ALL_FAILED else {word}
    return frozenset(chosen)
