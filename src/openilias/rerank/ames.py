"""AMES (Suma et al., ECCV 2024): a transformer that tells how alike two sets of local descriptors are.

One token gathers the match, beside those of query and image. In each of five layers a first attention lets the tokens
of either side see their own side, a second one those of the other side; the match token sees and is seen by all. What
is computed are these blocks, and not one attention over everything with most of it masked. The numbers are the same,
and: the tokens of the query do not know the image before the second attention, so up to there they are computed once
for a whole shortlist; of the last layer only the match token is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIMS, HEADS, LAYERS, WIDE = 128, 2, 5, 1024
"""Of the published networks."""
_ROWS = 1024


class Tokens(NamedTuple):
    """The tokens of a batch: match (B, 1, D), query (B or 1, Q, D), images (B, T, D)."""

    match: Tensor
    query: Tensor
    image: Tensor


class Padding(NamedTuple):
    """Where there are no tokens: (B or 1, Q) and (B, T) bool, True where padded; None where none are."""

    query: Tensor | None = None
    image: Tensor | None = None


NOTHING = Padding()


class Signs(nn.Module):
    """The signs of x W; while it learns, the error function in their place, which has a slope."""

    def __init__(self, dims: int, bits: int, sigma: float = 1e-6) -> None:
        """Draw W; it is that of ITQ in the published networks."""
        super().__init__()
        self.W = nn.Parameter(torch.randn(dims, bits))
        self._slope = 1 / (2 * sigma) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., bits) of (..., dims)."""
        made = F.normalize(x, dim=-1) @ self.W
        if self.training:
            return torch.erf(made * self._slope)
        return torch.where(made >= 0, 1.0, -1.0).to(made.dtype)  # a zero is a 1, as in packed bits


class _Attention(nn.MultiheadAttention):
    """Holds the weights under their published names, and attends to a few blocks of keys."""

    def project(self, x: Tensor, first: int, last: int) -> Tensor:
        """Return queries, keys and values, from ``first`` to ``last`` of the three, (B, heads, N, D / heads) each."""
        d = self.embed_dim
        weight, bias = self.in_proj_weight[first * d : last * d], self.in_proj_bias[first * d : last * d]
        batch, count = x.shape[:2]
        made = F.linear(x, weight, bias).view(batch, count, last - first, self.num_heads, d // self.num_heads)
        return made.permute(2, 0, 3, 1, 4)

    def finish(self, x: Tensor) -> Tensor:
        """Return (B, N, D) of the heads (B, heads, N, D / heads)."""
        return F.linear(x.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)


def _attend(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], padding: Tensor | None) -> Tensor:
    """Attend to some blocks of keys, of which the last may be padded."""
    k, v = (torch.cat([one.expand(len(parts[-1]), -1, -1, -1) for one in parts], 2) for parts in (keys, values))
    mask = None
    if padding is not None:
        seen = padding.new_ones((len(padding), k.shape[2] - padding.shape[1]))
        mask = torch.cat([seen, ~padding], 1)[:, None, None]
    batch = max(len(query), len(k))
    query, k, v = (one.expand(batch, -1, -1, -1) for one in (query, k, v))
    return F.scaled_dot_product_attention(query, k, v, attn_mask=mask)


class _Layer(nn.Module):
    """One layer; the tokens of each side see their own side first, then the other."""

    def __init__(self, dims: int, heads: int, wide: int) -> None:
        super().__init__()
        self.self_attn = _Attention(dims, heads, batch_first=True)
        self.cross_attn = _Attention(dims, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dims, wide), nn.Linear(wide, dims)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dims) for _ in range(3))

    def forward(self, tokens: Tokens, padding: Padding, *, last: bool) -> Tokens:
        """Return the tokens after the layer; of the last one only the match is made."""
        made = self._blocks(self.self_attn, tokens, padding, crossed=False)
        tokens = Tokens(*(self.norm1(x + y) for x, y in zip(tokens, made, strict=True)))
        if last:
            tokens = Tokens(self._match(self.cross_attn, tokens, padding) + tokens.match, *tokens[1:])
            return Tokens(self._wide(self.norm2(tokens.match)), *tokens[1:])
        made = self._blocks(self.cross_attn, tokens, padding, crossed=True)
        return Tokens(*(self._wide(self.norm2(x + y)) for x, y in zip(tokens, made, strict=True)))

    def _wide(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self._wide_of(x)
        out = torch.empty_like(x)  # in parts whose inner layer stays in the cache
        rows, made = x.view(-1, x.shape[-1]), out.view(-1, x.shape[-1])
        for start in range(0, len(rows), _ROWS):
            made[start : start + _ROWS] = self._wide_of(rows[start : start + _ROWS])
        return out

    def _wide_of(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm3(x + self.linear2(torch.relu_(self.linear1(x))))
        return out

    @staticmethod
    def _blocks(attention: _Attention, tokens: Tokens, padding: Padding, *, crossed: bool) -> Tokens:
        (qm, km, vm), (qq, kq, vq), (qi, ki, vi) = (attention.project(x, 0, 3) for x in tokens)
        match = _attend(qm, (km, kq, ki), (vm, vq, vi), _joined(padding, len(ki), kq.shape[2], ki.shape[2]))
        if crossed:
            query = _attend(qq, (km, ki), (vm, vi), padding.image)
            image = _attend(
                qi, (km, kq.expand(len(ki), -1, -1, -1)), (vm, vq.expand(len(ki), -1, -1, -1)), padding.query
            )
        else:
            # Where all images share the query, the match token is still that of the beginning, the same for all.
            alone = len(kq)
            query = _attend(qq, (km[:alone], kq), (vm[:alone], vq), padding.query)
            image = _attend(qi, (km, ki), (vm, vi), padding.image)
        return Tokens(*(attention.finish(x) for x in (match, query, image)))

    @staticmethod
    def _match(attention: _Attention, tokens: Tokens, padding: Padding) -> Tensor:
        qm, km, vm = attention.project(tokens.match, 0, 3)
        (kq, vq), (ki, vi) = (attention.project(x, 1, 3) for x in tokens[1:])
        mask = _joined(padding, len(ki), kq.shape[2], ki.shape[2])
        return attention.finish(_attend(qm, (km, kq, ki), (vm, vq, vi), mask))


def _joined(padding: Padding, batch: int, asked: int, known: int) -> Tensor | None:
    if padding.query is None and padding.image is None:
        return None
    device = next(one for one in padding if one is not None).device
    parts = [
        torch.zeros(batch, length, dtype=torch.bool, device=device) if one is None else one.expand(batch, -1)
        for one, length in zip(padding, (asked, known), strict=True)
    ]
    return torch.cat(parts, 1)


class _Decoder(nn.Module):
    def __init__(self, layers: Sequence[_Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Ames(nn.Module):
    """The network; its parameters have the published names.

    Args:
        local_dims: dimensions of the local descriptors.
        binary: take the signs of their projection.
        dims: of the tokens, and bits of the signs.
        heads: of attention.
        layers: how many.
        wide: of the inner layer.
    """

    def __init__(
        self,
        local_dims: int = 768,
        *,
        binary: bool = False,
        dims: int = DIMS,
        heads: int = HEADS,
        layers: int = LAYERS,
        wide: int = WIDE,
    ) -> None:
        """Draw the weights as the authors do."""
        super().__init__()
        self.binary, self.dims, self.local_dims = binary, dims, local_dims
        self.mtc_token = nn.Parameter(torch.empty(dims))
        if binary:
            self.remap_local = nn.Sequential(Signs(local_dims, dims), nn.Linear(dims, dims), nn.LayerNorm(dims))
        else:
            self.remap_local = nn.Sequential(nn.Linear(local_dims, dims), nn.LayerNorm(dims))
        self.decoder = _Decoder([_Layer(dims, heads, wide) for _ in range(layers)])
        self.classifier = nn.Linear(dims, 1)
        self._draw()

    def _draw(self) -> None:
        nn.init.trunc_normal_(self.mtc_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def tokens_of(self, descriptors: Tensor, *, image: bool) -> Tensor:
        """Return tokens (..., dims) of local descriptors.

        Args:
            descriptors: (..., D); of a binary network also the signs themselves, (..., dims) of 1 and -1.
            image: of the database: where descriptors are no signs they are kept in float16 between, as published.
        """
        if self.binary and descriptors.shape[-1] == self.dims != self.local_dims:
            return self.from_signs(descriptors)
        out: Tensor = self.remap_local(F.normalize(descriptors, dim=-1))
        return out.half().to(out.dtype) if image and not self.binary and not self.training else out

    def from_signs(self, signs: Tensor) -> Tensor:
        """Return tokens (..., dims) of signs (..., dims)."""
        out: Tensor = self.remap_local[2](self.remap_local[1](signs))
        return out

    def forward(self, query: Tensor, images: Tensor, padding: Padding = NOTHING) -> Tensor:
        """Return logits (B,): how alike each pair is; their sigmoid is a probability.

        Args:
            query: (B, Q, dims) tokens, or (1, Q, dims) for all images.
            images: (B, T, dims) tokens.
            padding: of both.
        """
        match = self.mtc_token.expand(len(images), 1, -1)
        tokens = Tokens(match, query, images)
        for number, layer in enumerate(self.decoder.layers):
            tokens = layer(tokens, padding, last=number == len(self.decoder.layers) - 1)
        out: Tensor = self.classifier(tokens.match)[:, 0, 0]
        return out
