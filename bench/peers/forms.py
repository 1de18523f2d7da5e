"""Low-rank forms of one Conv1d or Linear layer, written by hand.

Factors are A `(r, in / groups, k)` (Linear: `(r, in)`) and B `(out, r)`; the adapted weight is `W + s * (B @ A)`. In a grouped
convolution all groups share A, so any rank fits.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Factors:
    a: torch.Tensor
    b: torch.Tensor
    # alpha / r
    scale: float


def make_factors(layer: nn.Module, rank: int, alpha: int) -> Factors:
    """A as PEFT starts it; B random rather than zero, so that no work can be skipped."""
    out, *row = layer.weight.shape
    bound = 1 / math.sqrt(math.prod(row))
    return Factors(torch.empty(rank, *row).uniform_(-bound, bound), 0.05 * torch.randn(out, rank), alpha / rank)


class Adapted(nn.Module):
    """A frozen layer and its trainable factors."""

    def __init__(self, base: nn.Module, factors: Factors):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = nn.Parameter(factors.a.clone()), nn.Parameter(factors.b.clone())
        self.scale = factors.scale

    def apply_base(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The base's operation, its stride, padding, padding mode, dilation and groups, with another weight."""
        if isinstance(self.base, nn.Linear):
            return F.linear(x, weight, bias)
        return self.base._conv_forward(x, weight, bias)


class WeightSpace(Adapted):
    """One convolution with the folded weight; autograd goes through the fold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base = self.base.weight
        weight = torch.addmm(base.flatten(1), self.b, self.a.flatten(1), alpha=self.scale).view_as(base)
        return self.apply_base(x, weight, self.base.bias)


class TwoPath(Adapted):
    """PEFT's form, `base(x) + s * B(A(x))`, in the fewest operations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(self.base(x), self.low_rank(x), alpha=self.scale)

    def low_rank(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.base, nn.Linear):
            return F.linear(F.linear(x, self.a), self.b)
        groups = self.base.groups
        a = self.a.repeat(groups, 1, 1) if groups > 1 else self.a
        return F.conv1d(self.apply_base(x, a, None), self.b.unsqueeze(2), groups=groups)


def adapt(model: nn.Module, form: type[Adapted], factors: dict[str, Factors]) -> nn.Module:
    """Put the form in the place of every layer named in `factors`; all else is frozen."""
    model.requires_grad_(False)
    for path, pair in factors.items():
        model.set_submodule(path, form(model.get_submodule(path), pair))
    return model
