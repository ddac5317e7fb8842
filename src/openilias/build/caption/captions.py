"""``captions.csv``: the text of each object, and what a person decided about it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from openilias.build.caption.answers import Answer
from openilias.build.caption.judge import LONGEST, one_line
from openilias.build.caption.questions import Question
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes, write_bytes

Decision = Literal["draft", "accepted", "rejected"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
COLUMNS = ("object", "category", "status", "text", "image", "model", "raw")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Caption:
    """The text of an object.

    Attributes:
        object: its name.
        category: that the model was told; empty if none.
        status: draft of a model, or accepted or rejected by a person.
        text: one line.
        image: that the model was shown; empty if none was asked.
        model: that was asked; empty if none was.
        raw: what it said, as it said it.
    """

    object: str
    category: str = ""
    status: Decision = "draft"
    text: str = ""
    image: str = ""
    model: str = ""
    raw: str = ""

    @property
    def untouched(self) -> bool:
        """Whether nobody decided about it or edited it."""
        return self.status == "draft" and self.text == one_line(self.raw)


def read_captions(path: Path) -> dict[str, Caption]:
    """Read ``captions.csv``, as it was written or as a person or a spreadsheet left it; by object, sorted.

    Raises:
        OpenIliasError: it is missing, no UTF-8, or a line is not as it should be; named with its number.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise OpenIliasError("There are no captions here.", where=path, fix="ilias build caption ask SET") from None
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path, fix="Save it as UTF-8.") from None
    captions = list(_rows(text, path))
    twice = sorted(name for name, count in Counter(caption.object for caption in captions).items() if count > 1)
    if twice:
        raise OpenIliasError(f"Objects stand twice: {first_few(twice)}.", where=path, fix="Remove the copies.")
    return {caption.object: caption for caption in sorted(captions, key=lambda caption: caption.object)}


def _rows(text: str, path: Path) -> Iterator[Caption]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [word.strip().lower() for word in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            lacking = [name for name in COLUMNS if name not in header]
            what = f"It lacks {', '.join(lacking)}" if lacking else "It has others, or one twice"
            raise OpenIliasError(
                f"The columns must be '{','.join(COLUMNS)}'. {what}.",
                where=path,
                fix="Keep the columns as they are, with commas between.",
            )
        for words in reader:
            if any(words):
                yield _caption(header, words, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise OpenIliasError(
            f"This is no line of CSV: {error}.", where=f"{path}, line {reader.line_num}", fix="Correct it."
        ) from None


def _caption(header: list[str], words: list[str], where: str) -> Caption:
    def wrong(what: str) -> OpenIliasError:
        return OpenIliasError(what, where=where, fix="Correct the line.")

    if len(words) != len(header):
        raise wrong(f"Expected {len(header)} columns, found {len(words)}.")
    found = {column: _computed(word) for column, word in zip(header, words, strict=True)}
    name, status, text = (found[column].strip() for column in ("object", "status", "text"))
    decision = next((known for known in DECISIONS if known == status), None)
    if not name or "/" in name or not name.isprintable():
        raise wrong(f"Expected the name of an object, found {name[:120]!r}.")
    if decision is None:
        raise wrong(f"A status is one of {', '.join(DECISIONS)}, not {status[:40]!r}.")
    if len(text.splitlines()) > 1:
        raise wrong(f"The text of {name} has line breaks; a text query is one line.")
    if text and (not text.replace("\t", " ").isprintable() or len(text) > LONGEST):
        raise wrong(f"The text of {name} has characters that cannot be printed, or more than {LONGEST}.")
    if decision == "accepted" and not text:
        raise wrong(f"The text of {name} is accepted, and there is none.")
    kept = {column: found[column].strip() for column in ("category", "image", "model")}
    return Caption(name, status=decision, text=" ".join(text.split()), raw=found["raw"], **kept)


def _inert(text: str) -> str:
    """Return a text with ``'`` before it if a spreadsheet would compute it: models and names are strangers."""
    return f"'{text}" if _FORMULA.match(text) else text


def _computed(text: str) -> str:
    """Return what :func:`_inert` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_captions(path: Path, captions: Iterable[Caption]) -> None:
    """Write ``captions.csv``, sorted, all or nothing."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for caption in sorted(captions, key=lambda caption: caption.object):
        writer.writerow([_inert(getattr(caption, column)) for column in COLUMNS])
    write_bytes(path, text.getvalue().encode())


@dataclass(frozen=True)
class Drafted:
    """What became of a table: captions by object; those of a person for which there is another answer."""

    captions: dict[str, Caption]
    kept: tuple[str, ...]


def drafted(before: Mapping[str, Caption], questions: Iterable[tuple[Question, Answer | None]]) -> Drafted:
    """Return a table with the answers to some questions as drafts; what a person decided or edited stays as it is.

    An object without a good answer gets a draft without a text: a person may write one.
    """
    captions, kept = dict(before), []
    for question, answer in questions:
        made = _draft(question, answer)
        old = before.get(question.object)
        if old is None or old.untouched:
            if old is None or answer is not None:
                captions[question.object] = made
        elif made.raw and made.raw.split() != old.raw.split():
            kept.append(question.object)
    return Drafted(dict(sorted(captions.items())), tuple(kept))


def _draft(question: Question, answer: Answer | None) -> Caption:
    known = Caption(question.object, category=question.category or "", image=question.image)
    if answer is None:
        return known
    known = replace(known, model=answer.model)
    if answer.status != "ok" or answer.text is None:
        return known
    raw = answer.text.encode("utf-8", "ignore").decode().replace("\0", "")
    return replace(known, text=one_line(raw), raw=raw)
