"""Local descriptors from the last map of a network: the tokens of any transformer, or the map of a convolutional one.

As AMES has them (Suma et al., ECCV 2024): the larger side of the image becomes the resolution and both are rounded to
whole patches; a detector, a network of two 1 x 1 convolutions, gives each place its descriptor and its weight. Without
one a token is its own descriptor, and its length the weight.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError, first_few
from openilias.images.boxes import Box
from openilias.models.local_backbone import LocalBackbone, LocalSettings, PrepareLocal
from openilias.models.local_features import LocalFeatures
from openilias.models.network import LastMap, Network
from openilias.models.quiet import first_line
from openilias.models.spec import ModelSpec
from openilias.models.weights import digest_state, read_state


class Detector(nn.Module):
    """The attention detector of AMES, after DELG: where to look, and what is there. It has the published names."""

    def __init__(self, channels: int) -> None:
        """Make it; its weights are drawn."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 1, 1)

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit descriptors (B, C, h, w) and weights (B, h, w) of a map (B, C, h, w)."""
        x = self.bn(self.conv1(grid))
        return F.normalize(x, dim=1, eps=1e-15), F.softplus(self.conv2(F.relu(x)))[:, 0]


def read_detector(path: Path) -> Detector:
    """Read a detector, ``{'state': state dict}`` or a plain one.

    Raises:
        OpenIliasError: the file is missing, damaged, or of something else.
    """
    if not path.is_file():
        raise OpenIliasError("There is no such detector.", where=path, fix="Check --detector.")
    state = read_state(path)
    weight = state.get("conv1.weight")
    if weight is None or weight.ndim != 4:
        raise OpenIliasError(
            f"This is no detector, it holds {first_few(sorted(state))}.", where=path, fix="Give a detector of AMES."
        )
    made = Detector(int(weight.shape[1]))
    try:
        made.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        )
    except RuntimeError as error:
        raise OpenIliasError(
            f"This is no detector: {first_line(error)}.", where=path, fix="Give that of AMES."
        ) from None
    return made.eval()


@dataclass(frozen=True)
class MapPreparation:
    """Resizes a picture, as the code of AMES does it with OpenCV: by areas when it becomes smaller, else linearly.

    Attributes:
        settings: resolution and scales.
        patch: both sides become multiples of it; 1 leaves them as they are.
    """

    settings: LocalSettings
    patch: int = 1

    def __call__(self, image: Image.Image, boxes: tuple[Box, ...] = ()) -> list[npt.NDArray[np.uint8]]:
        """Return (H, W, 3) uint8 pixels for each scale."""
        import cv2

        pixels = np.asarray(image)
        height, width = pixels.shape[:2]
        made = []
        for scale in self.settings.scales:
            factor = scale * self.settings.resolution / max(height, width)
            across, down = (self._side(side, factor) for side in (width, height))
            smaller = across < width or down < height
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            same = (across, down) == (width, height)
            made.append(pixels if same else np.asarray(cv2.resize(pixels, (across, down), interpolation=how), np.uint8))
        return made

    def _side(self, side: int, factor: float) -> int:
        """Return the new length of a side: a whole number of patches, at least one."""
        return max(round(side * factor / self.patch), 1) * self.patch


class NetworkBackbone(LocalBackbone):
    """A network, and a detector where there is one."""

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        settings: LocalSettings,
        *,
        detector: Detector | None = None,
        weights_from: str,
        device: str = "cpu",
    ) -> None:
        """Bind a network to the settings.

        Raises:
            OpenIliasError: it has no map, or the detector is of another number of channels.
        """
        if network.last_map is None:
            raise OpenIliasError(f"{spec.name} has no map of local descriptors.", fix="Take a transformer or a ResNet.")
        self.name, self.spec, self.settings, self.device = spec.name, spec, settings, device
        self.weights_from = weights_from
        self.weight_from = "norm of the token" if detector is None else "detector"
        network.module.eval().to(device)
        self._network, self._map = network, network.last_map
        self._detector = None if detector is None else detector.eval().to(device)
        state = dict(network.module.state_dict())
        if detector is not None:
            state |= {f"detector.{name}": value for name, value in detector.state_dict().items()}
        self.weights_digest = digest_state(state)
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        self._patch = network.multiple[0]
        self.batch_size = 8 if device != "cpu" else 2
        self.dims = self._measured()

    @torch.inference_mode()
    def _measured(self) -> int:
        side = max(self._patch, 28) * 8
        grid = self._grid(torch.zeros(1, 3, side, side, device=self.device)).grid
        if self._detector is not None and self._detector.conv1.in_channels != grid.shape[1]:
            raise OpenIliasError(
                f"{self.name} has {grid.shape[1]} channels, this detector takes {self._detector.conv1.in_channels}.",
                fix="Give the detector that was trained with this network.",
            )
        return int(grid.shape[1])

    def _grid(self, images: Tensor) -> LastMap:
        try:
            return self._map(images)
        except Exception as error:  # networks fail in many ways at sizes that they cannot take
            raise OpenIliasError(
                f"{self.name} cannot take images of {images.shape[2]} x {images.shape[3]} pixels: {first_line(error)}.",
                fix="Its input size may be fixed; or the batch is too large: lower --batch-size.",
            ) from None

    def preparation(self) -> PrepareLocal:
        """Return what resizes a picture."""
        return MapPreparation(self.settings, self._patch)

    def group_of(self, prepared: Any) -> Hashable:
        """Pictures of the same sizes go together."""
        return tuple(pixels.shape for pixels in prepared)

    def description(self) -> dict[str, Any]:
        """Return what a descriptor depends on."""
        return {
            "name": self.name,
            "model": self.spec.description(),
            "weight": self.weight_from,
            **self.settings.model_dump(mode="json"),
        }

    @torch.inference_mode()
    def find(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Return the descriptors of all scales together."""
        parts = [self._of_scale([pictures[number] for pictures in batch], number) for number in range(len(batch[0]))]
        descriptors, geometry = (torch.cat(values, 1) for values in zip(*parts, strict=True))
        count = min(self.settings.most, descriptors.shape[1])
        # A stable order: of equal weights the first stay first, on every device.
        order = geometry[:, :, 3].argsort(dim=1, descending=True, stable=True)[:, :count]
        kept = (
            values.gather(1, order[..., None].expand(-1, -1, values.shape[2])) for values in (descriptors, geometry)
        )
        found = zip(*(values.cpu().numpy() for values in kept), batch, strict=True)
        return [LocalFeatures(values, places, *self._size(pictures)) for values, places, pictures in found]

    def _size(self, pictures: list[npt.NDArray[np.uint8]]) -> tuple[int, int]:
        """Return the height and width of the picture whose scale is nearest to 1."""
        number = min(range(len(pictures)), key=lambda i: abs(np.log(self.settings.scales[i])))
        height, width = pictures[number].shape[:2]
        return int(height), int(width)

    def _of_scale(self, pictures: list[npt.NDArray[np.uint8]], number: int) -> tuple[Tensor, Tensor]:
        """Return descriptors (B, n, D) of unit length and geometry (B, n, 4); of a small picture they are large."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device)
        images = pixels.permute(0, 3, 1, 2).float().div(255).sub(self._mean).div(self._std)
        grid = self._grid(images).grid.float()
        if self._detector is None:
            weights = grid.norm(dim=1)
            grid = F.normalize(grid, dim=1)
        else:
            grid, weights = self._detector(grid)
        down, across = grid.shape[2:]
        y, x = ((torch.arange(count, device=self.device) + 0.5) / count for count in (down, across))
        scale = torch.full((down * across,), 1 / self.settings.scales[number], device=self.device)
        places = torch.stack([y.repeat_interleave(across), x.repeat(down), scale], 1)
        geometry = torch.cat([places.expand(len(pictures), -1, -1), weights.flatten(1)[..., None]], 2)
        return grid.flatten(2).mT, geometry
