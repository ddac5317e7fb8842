"""The text towers of models whose image tower is another library's."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError
from openilias.models.open_clip_adapter import OpenClipTexts, converted
from openilias.models.quiet import quiet
from openilias.models.spec import ModelSpec, TextTower
from openilias.models.weights import WeightsSource, digest_state, fit_state, read_state

# Takes the place of the image tower, which is not wanted here.
_NO_IMAGES: dict[str, Any] = {"image_size": 32, "patch_size": 32, "layers": 1, "width": 64, "head_width": 64}


class PairedTexts:
    """Describes texts; the tower and its tokenizer are loaded when they are asked for first."""

    def __init__(self, spec: ModelSpec, tower: TextTower, weights: WeightsSource, device: str) -> None:
        """``weights`` are those of the text tower."""
        self._spec = spec
        self._tower = tower
        self._weights = weights
        self._device = device
        self._kept: tuple[OpenClipTexts, str] | None = None

    def digest(self, texts: list[str]) -> str:
        """Return the SHA-256 of the tower, its weights, and the tokens of texts.

        Raises:
            OpenIliasError: one of them cannot be loaded.
        """
        tower, weights = self._loaded()
        made = f"{self._tower.model_dump_json(exclude={'official'})} {weights} {tower.digest(texts)}"
        return hashlib.sha256(made.encode()).hexdigest()

    def __call__(self, texts: list[str]) -> Tensor:
        """Return (B, D) of B texts, on the device."""
        return self._loaded()[0](texts)

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Return (B, D) of (B, context) token numbers."""
        return self._loaded()[0].of_tokens(tokens)

    def _loaded(self) -> tuple[OpenClipTexts, str]:
        if self._kept is None:
            module = text_tower(self._tower, self._weights, model=self._spec)
            digest = digest_state(module.state_dict())
            module = module.eval().to(self._device)
            architecture, folder = self._tower.architecture, self._weights.tokenizer
            self._kept = OpenClipTexts(module, architecture, folder, model=self._spec.name), digest
        return self._kept


def text_tower(tower: TextTower, weights: WeightsSource, *, model: ModelSpec) -> nn.Module:
    """Build a text tower; it has ``encode_text``, and no image tower.

    Raises:
        OpenIliasError: open_clip cannot build it, or the weights are missing or do not fit.
    """
    import open_clip

    whole = model.model_copy(
        update={
            "library": "open_clip",
            "architecture": tower.architecture,
            "source": f"open_clip {tower.architecture}/{tower.tag}",
        }
    )
    if open_clip.get_model_config(tower.architecture) is None:
        raise OpenIliasError(f"open_clip has no model {tower.architecture!r}.", fix="A newer open_clip may have it.")
    with weights.building(whole), quiet():
        module: Any = open_clip.create_model(
            tower.architecture,
            pretrained=tower.tag if weights.hub else None,
            load_weights=weights.hub,
            require_pretrained=weights.hub,
            force_quick_gelu=tower.quick_gelu,
            device=weights.device,
            pretrained_text=False,
            **({} if weights.hub else {"vision_cfg": _NO_IMAGES}),
        )
    module.visual = nn.Identity()
    if weights.file is not None:
        fit_state(module, converted(module, read_state(weights.file)), where=weights.file, spare=("visual",))
    network: nn.Module = module
    return network


@torch.no_grad()
def measured(tower: TextTower, *, model: ModelSpec) -> tuple[int, int, int]:
    """Return the dimensions, the parameters and the context length of a tower, without making any numbers."""
    return measured_within(text_tower(tower, WeightsSource(shapes_only=True), model=model))


@torch.no_grad()
def measured_within(module: Any) -> tuple[int, int, int]:
    """Do :func:`measured` for the text tower of a whole model of open_clip on the meta device."""
    context = int(module.context_length)
    dims = module.encode_text(torch.zeros(1, context, dtype=torch.long, device="meta")).shape[1]
    of_images = {id(parameter) for parameter in module.visual.parameters()}
    return int(dims), sum(p.numel() for p in module.parameters() if id(p) not in of_images), context
