"""What asking will cost, before it is asked. An estimate: only the bill knows the tokens of an endpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from openilias.build.caption.questions import Detail, Question, Settings
from openilias.core.errors import OpenIliasError

_LETTERS = 4  # characters of a token of English
_USUAL = 80  # tokens of a description of the length of the paper's
_FEW = 8  # tokens around the messages
_BASE, _TILE, _SIDE, _FIT, _SHORT = 85, 170, 512, 2048, 768
RULE = (
    f"text by {_LETTERS} characters a token; an image {_BASE} + {_TILE} for each tile of {_SIDE} pixels, as OpenAI "
    "counts for GPT-4o; other models count otherwise"
)


@dataclass(frozen=True)
class Prices:
    """Of a million tokens each, in any currency."""

    input: float
    output: float

    def __post_init__(self) -> None:
        """Refuse what is no price."""
        if not all(math.isfinite(price) and price >= 0 for price in (self.input, self.output)):
            raise OpenIliasError("A price is a number, zero or more.", fix="Give the price of a million tokens.")


@dataclass(frozen=True)
class Estimate:
    """What asking some questions costs.

    Attributes:
        questions: how many.
        text_tokens: of prompt and category.
        image_tokens: of the images.
        output_tokens: of answers of the usual length.
        most_output_tokens: of answers as long as they may be.
        cost: of the usual answers, None without prices.
        most_cost: of the longest answers; failed tries are not charged by the endpoints that we know.
    """

    questions: int
    text_tokens: int
    image_tokens: int
    output_tokens: int
    most_output_tokens: int
    cost: float | None
    most_cost: float | None

    def lines(self) -> list[str]:
        """Return it for a person."""
        if not self.questions:
            return ["nothing is left to ask"]
        input_tokens = self.text_tokens + self.image_tokens
        lines = [
            f"{self.questions} questions: about {input_tokens:,} tokens in ({self.text_tokens:,} of text, "
            f"{self.image_tokens:,} of images), {self.output_tokens:,} out, at most {self.most_output_tokens:,}",
        ]
        if self.cost is not None:
            lines.append(f"cost: about {self.cost:.4g}, at most {self.most_cost:.4g}, in the currency of the prices")
        return [*lines, f"an estimate: {RULE}"]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"rule": RULE}


def image_tokens(width: int, height: int, detail: Detail) -> int:
    """Return the tokens of an image of so many pixels, by the rule of tiles."""
    if detail == "low":
        return _BASE
    scale = min(1.0, _FIT / max(width, height))
    scale = min(scale, _SHORT / min(width, height))
    tiles = math.ceil(round(width * scale, 6) / _SIDE) * math.ceil(round(height * scale, 6) / _SIDE)
    return _BASE + _TILE * tiles


def estimate(questions: Iterable[Question], settings: Settings, prices: Prices | None = None) -> Estimate:
    """Estimate what asking some questions costs."""
    questions = list(questions)
    texts = [len(settings.prompt) + len(question.words or "") for question in questions]
    text = sum(math.ceil(length / _LETTERS) + _FEW for length in texts)
    image = sum(image_tokens(*question.size, settings.detail) for question in questions)
    output, most = (len(questions) * tokens for tokens in (min(_USUAL, settings.max_tokens), settings.max_tokens))
    cost, most_cost = (
        None if prices is None else ((text + image) * prices.input + tokens * prices.output) / 1e6
        for tokens in (output, most)
    )
    return Estimate(len(questions), text, image, output, most, cost, most_cost)
