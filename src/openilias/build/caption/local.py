"""Asking a vision-language model of transformers that runs here."""

from __future__ import annotations

from typing import Any

from openilias.build.caption.judge import Judged, one_line
from openilias.build.caption.questions import Settings
from openilias.core.errors import OpenIliasError
from openilias.models.quiet import first_line, quiet


class Local:
    """A model of the hub or of a folder, with its processor.

    Args:
        argument: ``MODEL[@REVISION]``.
        device: where it computes.

    Raises:
        OpenIliasError: it cannot be loaded, or is no model that is talked to.
    """

    def __init__(self, argument: str, device: str = "cpu") -> None:
        from openilias.build.networks import load_network  # loads torch

        self._network, self._processor, self.record = load_network(
            "AutoModelForImageTextToText", "AutoProcessor", argument, device
        )
        self._device = device
        template = getattr(self._processor, "chat_template", None)
        if not template and not getattr(getattr(self._processor, "tokenizer", None), "chat_template", None):
            raise OpenIliasError(
                "This model has no chat template: nobody knows how to ask it.",
                where=argument,
                fix="Give one that follows instructions.",
            )

    @property
    def model(self) -> str:
        """Its name, its commit and the digest of its weights: what its answers depend on."""
        revision = f"@{self.record['revision']}" if self.record["revision"] else ""
        return f"{self.record['model']}{revision} {self.record['weights']}"

    def answer(self, messages: list[dict[str, Any]], settings: Settings) -> Judged:
        """Return what the model says to the messages of a request."""
        import torch

        heat = settings.temperature
        sampling: dict[str, Any] = {"do_sample": True, "temperature": heat} if heat else {"do_sample": False}
        torch.manual_seed(settings.seed or 0)
        try:
            with quiet(), torch.inference_mode():
                inputs = self._processor.apply_chat_template(
                    local_messages(messages),
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                ).to(self._device)
                made = self._network.generate(
                    **inputs,
                    max_new_tokens=settings.max_tokens,
                    **(sampling if heat is not None else {}),  # without one as the model's own settings say
                )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise OpenIliasError(
                f"The model could not answer: {first_line(error)}.", where=self.model, fix="Try another model."
            ) from None
        prompt = inputs["input_ids"].shape[1]
        new = made[0, prompt:]
        text = self._processor.batch_decode(new[None], skip_special_tokens=True)[0]
        usage = {"prompt_tokens": int(prompt), "completion_tokens": len(new), "total_tokens": int(prompt) + len(new)}
        ended = len(new) < settings.max_tokens or int(new[-1]) in _ends(self._network)
        known: dict[str, Any] = {"answered_by": self.model, "usage": usage}
        if not ended:
            return Judged("length", text, "the answer was cut off at the most tokens", finish_reason="length", **known)
        if not one_line(text):
            return Judged("empty", text, "the answer is empty", finish_reason="stop", **known)
        return Judged("ok", text, finish_reason="stop", **known)


def local_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages as chat templates want them: every content in parts, images by their own name."""
    return [{"role": message["role"], "content": _parts(message["content"])} for message in messages]


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {"type": "image", "url": part["image_url"]["url"]} if part["type"] == "image_url" else dict(part)
        for part in content
    ]


def _ends(network: Any) -> set[int]:
    ends = getattr(network.generation_config, "eos_token_id", None)
    return set(ends) if isinstance(ends, list) else set() if ends is None else {int(ends)}
