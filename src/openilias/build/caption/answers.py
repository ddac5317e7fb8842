"""``answers.jsonl``: every answer as it came. It is only ever added to; a line that a kill cut off is not one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, read_bytes
from openilias.descriptors.store import told_if_full

Status = Literal[
    "ok", "refusal", "filtered", "length", "empty", "too-long", "no-choices", "malformed", "not-json", "html",
    "bad-request", "failed",
]  # fmt: skip
STATUSES: tuple[Status, ...] = get_args(Status)
FAILED: Status = "failed"
"""No answer came at all: the only status that is asked again without being told to."""
_MOST_BYTES = 2**32


class Answer(BaseModel):
    """A request and what came of it.

    Attributes:
        object: whom it was about.
        image: id of the image that was shown.
        sha256: of its stored file.
        category: that was told; None if none.
        request: fingerprint of the request.
        prompt: the system message.
        model: that was asked.
        endpoint: where it was asked; None if here.
        temperature: as asked for.
        seed: as asked for.
        max_tokens: as asked for.
        status: what the answer is worth; a text only where it is ``ok``.
        text: what the model said, as it said it; None if it said nothing.
        error: what is wrong, in words.
        raw: the whole answer as it came.
        answered_by: the model by its own words.
        system_fingerprint: of the endpoint's software, by its own words.
        finish_reason: why the answer ends.
        usage: tokens by kind.
        failures: tries that failed before.
        asked_at: date and time in UTC.
        seconds: from the first try to the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: str
    image: str
    sha256: str
    category: str | None
    request: str
    prompt: str
    model: str
    endpoint: str | None
    temperature: float | None
    seed: int | None
    max_tokens: int
    status: Status
    text: str | None = None
    error: str | None = None
    raw: str = ""
    answered_by: str | None = None
    system_fingerprint: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = {}
    failures: tuple[str, ...] = ()
    asked_at: str
    seconds: float


class Answers:
    """The latest answer to each request."""

    def __init__(self, latest: dict[str, Answer], file: Any) -> None:
        self.latest, self._file = latest, file

    def put(self, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns."""
        # Escapes keep what is no text, such as half a surrogate pair.
        line = json.dumps(answer.model_dump(mode="json"), ensure_ascii=True, allow_nan=False)
        with told_if_full(Path(self._file.name)):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.latest[answer.request] = answer


@contextmanager
def kept_answers(path: Path) -> Iterator[Answers]:
    """Give the answers that are here, to read and to add to; what a kill left of a line is cut off.

    Raises:
        OpenIliasError: the file is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    latest: dict[str, Answer] = {}
    whole = _lines(path, latest)
    with path.open("r+b") as file:
        file.truncate(whole)
    with path.open("ab") as file:
        yield Answers(latest, file)


def read_answers(path: Path) -> dict[str, Answer]:
    """Return the latest answer to each request; nothing if none was asked.

    Raises:
        OpenIliasError: the file is damaged.
    """
    latest: dict[str, Answer] = {}
    if path.is_file():
        _lines(path, latest)
    return latest


def _lines(path: Path, latest: dict[str, Answer]) -> int:
    """Read the whole lines of a file; return their bytes."""
    whole = 0
    try:
        data = read_bytes(path, most=_MOST_BYTES)
    except OSError as error:
        raise OpenIliasError(f"The answers cannot be read: {error}.", where=path, fix="Move the file away.") from None
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            answer = Answer.model_validate(json.loads(line))
        except (ValidationError, ValueError, RecursionError):
            raise OpenIliasError(
                "This is no answer as it is kept.",
                where=f"{path}, line {number}",
                fix="Remove the line; its object is asked again.",
            ) from None
        # An answer that is good is not lost to a later try that failed.
        if answer.status == "ok" or getattr(latest.get(answer.request), "status", None) != "ok":
            latest[answer.request] = answer
        whole += len(line) + 1
    return whole


@contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Keep the state of this step to one process.

    Raises:
        OpenIliasError: another one is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder):
        yield
