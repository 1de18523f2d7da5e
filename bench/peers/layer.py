"""One Conv1d in every form: inference, and a training step (forward, and backward to the input and the factors)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from forms import Factors, TwoPath, WeightSpace, adapt, make_factors
from with_peft import Unsuitable, adapt_with_peft, difference, try_peft

# alpha / r is 2 at every rank.
ALPHA_OF_RANK = 2


class Padded(nn.Module):
    """A convolution after explicit padding `(left, right)`, which nn.Conv1d does not offer."""

    def __init__(self, conv: nn.Conv1d, padding: list[int] | None, mode: str):
        super().__init__()
        self.conv, self.padding, self.mode = conv, padding, "constant" if mode == "zeros" else mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x if self.padding is None else F.pad(x, self.padding, self.mode))


def make_base(geometry: dict) -> Padded:
    padding, mode = geometry["padding"], geometry.get("padding_mode", "zeros")
    explicit = padding if isinstance(padding, list) else None
    conv = nn.Conv1d(
        geometry["in"],
        geometry["out"],
        geometry["kernel"],
        stride=geometry.get("stride", 1),
        padding=0 if explicit else padding,
        dilation=geometry.get("dilation", 1),
        groups=geometry.get("groups", 1),
        bias=geometry.get("bias", True),
        padding_mode="zeros" if explicit else mode,
    )
    return Padded(conv, explicit, mode)


def rank_is_wasted(conv: nn.Conv1d, factors: Factors) -> bool:
    """Whether the low-rank path of a group is wider than what it reads."""
    return factors.b.shape[1] > conv.weight[0].numel()


class LayerWorkload:
    """The layer of a geometry, held once for each peer; all peers share their first weights and their data."""

    def __init__(self, geometry: dict, rank: int, batch: int, length: int):
        torch.manual_seed(0)
        base = make_base(geometry).requires_grad_(False)
        self.x = torch.randn(batch, geometry["in"], length)
        with torch.no_grad():
            self.dy = torch.randn_like(base(self.x))
        factors = {"conv": make_factors(base.conv, rank, ALPHA_OF_RANK * rank)}
        self.marks: dict[str, str] = {}
        weight = adapt(copy.deepcopy(base), WeightSpace, factors)
        peers = {
            "torch-frozen": base,
            "torch-peft": self.two_path(geometry, base, factors, weight),
            "torch-weight": weight,
            "torch-full": copy.deepcopy(base).requires_grad_(True),
        }
        self.peers = {name: model for name, model in peers.items() if model is not None}
        self.x.requires_grad_(True)

    def two_path(self, geometry: dict, base: Padded, factors: dict, weight: nn.Module) -> nn.Module | None:
        try:
            try_peft(lambda: make_base(geometry), factors, self.x.shape)
        except Unsuitable as reason:
            if rank_is_wasted(base.conv, factors["conv"]):
                # Nobody would write it, and to be faster than it says nothing.
                self.marks["torch-peft"] = f"left out: {reason}, and the rank is above in / groups * kernel"
                return None
            self.marks["torch-peft"] = f"two-path by hand: {reason}"
            return adapt(copy.deepcopy(base), TwoPath, factors)
        adapted = adapt_with_peft(copy.deepcopy(base), factors)
        with torch.no_grad():
            mark = difference(adapted, factors, self.x, weight(self.x))
        if mark:
            self.marks["torch-peft"] = mark
        return adapted

    def describe(self) -> dict:
        return {"peers": list(self.peers), "marks": self.marks}

    def prepare(self, peer: str, mode: str):
        """What to time; gradients of the last call are dropped here."""
        model = self.peers[peer]
        if mode == "infer":
            return lambda: self.infer(model)
        if mode != "train":
            raise ValueError(f"a layer has no mode {mode!r}")
        model.zero_grad(set_to_none=True)
        self.x.grad = None
        return lambda: model(self.x).backward(self.dy)

    @torch.no_grad()
    def infer(self, model: nn.Module) -> None:
        model(self.x)
