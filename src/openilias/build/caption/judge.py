"""What an answer is worth: whatever an endpoint may send, and the text in it if there is one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from openilias.build.caption.answers import Status

LONGEST = 8000
"""Characters of a text; what is longer is no description of an object."""


@dataclass(frozen=True)
class Judged:
    """What the body of an answer says."""

    status: Status
    text: str | None = None
    error: str | None = None
    answered_by: str | None = None
    system_fingerprint: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


def judge(raw: str) -> Judged:
    """Judge the body of a successful answer of ``/chat/completions``."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        if raw.lstrip().startswith("<"):
            return Judged("html", error="a web page came, and no answer")
        return Judged("not-json", error="no JSON came")
    if not isinstance(body, dict):
        return Judged("malformed", error="the answer is no JSON object")
    usage = body.get("usage")
    known: dict[str, Any] = {
        "answered_by": _words(body.get("model")),
        "system_fingerprint": _words(body.get("system_fingerprint")),
        "usage": {
            str(name): count
            for name, count in (usage if isinstance(usage, dict) else {}).items()
            if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53
        },
    }
    choices = body.get("choices")
    if not choices:
        return Judged("no-choices", error=_told(body) or "the answer has no choices", **known)
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Judged("malformed", error="the first choice has no message", **known)
    finish = _words(choice.get("finish_reason"))
    return _message(message, known | {"finish_reason": finish})


def _message(message: dict[str, Any], known: dict[str, Any]) -> Judged:
    text, finish = _content(message.get("content")), known["finish_reason"]
    if message.get("refusal"):
        refusal = message["refusal"]
        return Judged("refusal", text, error=_words(refusal) or "the model refuses", **known)
    if text is None:
        return Judged("malformed", error="the content of the message is no text", **known)
    if finish == "content_filter":
        return Judged("filtered", text, error="the endpoint filtered the answer", **known)
    if finish == "length":
        return Judged("length", text, error="the answer was cut off at the most tokens", **known)
    if not one_line(text):
        return Judged("empty", text, error="the answer is empty", **known)
    if len(text) > LONGEST:
        return Judged("too-long", text, error=f"the answer has {len(text)} characters", **known)
    return Judged("ok", text, **known)


def _content(content: Any) -> str | None:
    """Return the text of a message, which some endpoints give in parts; None if it is something else."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        words = [part for part in parts if isinstance(part, str)]
        return "".join(words) if len(words) == len(parts) else None
    return content if isinstance(content, str) else None


def _told(body: dict[str, Any]) -> str | None:
    error = body.get("error")
    return _words(error.get("message")) if isinstance(error, dict) else _words(error)


def _words(value: Any) -> str | None:
    return one_line(value)[:500] if isinstance(value, str) else None


def one_line(text: str) -> str:
    """Return a text in one line, with single spaces, without what cannot be printed."""
    spaced = " ".join(text.split())
    return "".join(letter for letter in spaced if letter.isprintable()).strip()
