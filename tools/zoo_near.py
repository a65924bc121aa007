"""Near misses: what resembles an attention, a norm, an activation or a rotation, and is none.

Each is a line of arithmetic between projections. A compiler that finds one of the real things in it is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Mix = Callable[..., Tensor]
HEADS, SIZE = 4, 16


class Blend(nn.Module):
    """Heads of queries, keys and values (B, N, S, D), whatever ``mix`` makes of them, and an output projection."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.out = nn.Linear(64, 64)
        self.heads = nn.Parameter(torch.empty(HEADS, HEADS))
        self.mix = mix

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, S, 64), and what may be seen (B, S), to (B, S, 64)."""
        batch, length, _ = x.shape
        q, k, v = (part(x).view(batch, length, HEADS, SIZE).transpose(1, 2) for part in self.parts)
        more: dict[str, Any] = {} if keep is None else {"keep": keep[:, None, None, :].to(x.dtype)}
        if self.mix is talk:
            more["heads"] = self.heads
        mixed = self.mix(q, k, v, **more)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, 64))  # type: ignore[no-any-return]


class Between(nn.Module):
    """Elementwise arithmetic, or a norm of our own, between two projections."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        self.gain = nn.Parameter(torch.ones(64))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, 64) to the same."""
        return self.last(self.function(self.first(x)) * self.gain)  # type: ignore[no-any-return]


def scores(q: Tensor, k: Tensor) -> Tensor:
    """q·kᵀ/√d."""
    return (q @ k.transpose(-1, -2)).mul(SIZE**-0.5)


def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """φ(q)·(φ(k)ᵀ·v) over φ(q)·Σφ(k), with φ = elu + 1."""
    q, k = functional.elu(q) + 1, functional.elu(k) + 1
    return q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2, keepdim=True).transpose(-1, -2))


def twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The probabilities weigh the values, and their entropy scales what comes out."""
    p = scores(q, k).softmax(-1)
    return (p @ v) * -(p * p.clamp_min(1e-9).log()).sum(-1, keepdim=True)


def talk(q: Tensor, k: Tensor, v: Tensor, heads: Tensor) -> Tensor:
    """Talking heads: the probabilities of all heads are mixed before they weigh the values."""
    p = scores(q, k).softmax(-1)
    return torch.einsum("bnst,nm->bmst", p, heads) @ v


def top(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Only the four highest scores of each row count."""
    s = scores(q, k)
    return s.masked_fill(s < s.topk(4, -1).values[..., -1:], -torch.inf).softmax(-1) @ v


def gate(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The four highest probabilities of each row, not summing to one."""
    p = scores(q, k).softmax(-1)
    return p * (p >= p.topk(4, -1).values[..., -1:]) @ v


def quiet(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """exp(s)/(1 + Σexp(s)): a row may weigh nothing."""
    weights = scores(q, k).exp()
    return weights / (1 + weights.sum(-1, keepdim=True)) @ v


def rotate(sign: float, x: Tensor) -> Tensor:
    """A rotation by halves if ``sign`` is −1, and else none."""
    angles = torch.arange(x.shape[-2])[:, None] * 0.1 ** torch.arange(SIZE // 2)
    cos, sin = (torch.cat((part, part), -1) for part in (angles.cos(), angles.sin()))
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((sign * right, left), -1) * sin


def crossed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries and keys that are turned with the wrong sign; there is no softmax."""
    return scores(rotate(1.0, q), rotate(1.0, k)) @ v


def after(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """The cap comes after the mask, so that what is hidden stays in sight."""
    return (5 * torch.tanh((scores(q, k) + (1 - keep) * -10) / 5)).softmax(-1) @ v


BLENDS: Mapping[str, Mix] = {
    "linear": linear,
    "feature-softmax": lambda q, k, v: q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v),
    "relu-scores": lambda q, k, v: scores(q, k).relu().softmax(-1) @ v,
    "gelu-probabilities": lambda q, k, v: functional.gelu(scores(q, k).softmax(-1)) @ v,
    "query-axis": lambda q, k, v: scores(q, k).softmax(-2) @ v,
    "head-axis": lambda q, k, v: scores(q, k).softmax(1) @ v,
    "squared": lambda q, k, v: scores(q, k).square().softmax(-1) @ v,
    "absolute": lambda q, k, v: scores(q, k).abs().softmax(-1) @ v,
    "sigmoid": lambda q, k, v: scores(q, k).sigmoid() @ v,
    "log": lambda q, k, v: scores(q, k).log_softmax(-1) @ v,
    "product": lambda q, k, v: (scores(q, k) * scores(k, q)).softmax(-1) @ v,
    "value-first": lambda q, k, v: scores(q, k) @ v.softmax(-1),
    "twice": twice,
    "talk": talk,
    "top": top,
    "gate": gate,
    "quiet": quiet,
    "crossed": crossed,
}
"""Of queries, keys and values alone."""

MASKED: Mapping[str, Mix] = {
    "mask-times": lambda q, k, v, keep: (scores(q, k) * keep).softmax(-1) @ v,
    "mask-after": lambda q, k, v, keep: (scores(q, k).softmax(-1) * keep) @ v,
    "mask-probabilities": lambda q, k, v, keep: (scores(q, k).softmax(-1) + keep) @ v,
    "cap-after": after,
}
"""With a mask as well."""


def spread(x: Tensor) -> Tensor:
    """x/(σ + ε) with the unbiased σ: the norm of the annotated transformer."""
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1)


def uneven(x: Tensor) -> Tensor:
    """A layer norm with an epsilon for each channel."""
    epsilons = torch.linspace(1e-5, 0.1, x.shape[-1])
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + epsilons).sqrt()


BETWEEN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "layer-axis": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt(),
    "layer-spread": spread,
    "layer-uncentred": lambda x: x / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt(),
    "layer-epsilons": uneven,
    "rms-mean": lambda x: (x - x.mean(-1, keepdim=True)) * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt(),
    "rms-absolute": lambda x: x * (x.abs().mean(-1, keepdim=True) + 1e-6).rsqrt(),
    "rms-axes": lambda x: x * (x.square().mean((-1, 1), keepdim=True) + 1e-6).rsqrt(),
    "gelu-erf": lambda x: x * 0.5 * (1 + torch.erf(x / 1.5)),
    "gelu-tanh": lambda x: x * 0.5 * (1 + torch.tanh(0.7978845608 * (x + 0.05 * x.pow(3)))),
    "gelu-cross": lambda x: x.flip(-1) * 0.5 * (1 + torch.erf(x * 2**-0.5)),
    "swish-cross": lambda x: x.flip(-1) * torch.sigmoid(x),
    "swish-shift": lambda x: x * torch.sigmoid(x + 0.5),
}
