"""Adapters by the real PEFT."""

import warnings
from typing import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from forms import Factors

warnings.filterwarnings("ignore", module="peft")

# Largest difference, relative to the largest output, at which PEFT is said to compute the same function.
AGREE = 1e-3


class Unsuitable(Exception):
    """Why PEFT cannot adapt a model."""


def config(factors: dict[str, Factors]) -> LoraConfig:
    pair = next(iter(factors.values()))
    rank = pair.b.shape[1]
    return LoraConfig(
        r=rank, lora_alpha=round(pair.scale * rank), target_modules=list(factors), init_lora_weights=False
    )


def try_peft(network: Callable[[], nn.Module], factors: dict[str, Factors], shape: torch.Size) -> None:
    """`Unsuitable` if an input of this shape does not pass through PEFT's adapters on the network, forward and backward, to
    an output as long as the base's. On the meta device: it takes neither time nor memory."""
    with torch.device("meta"):
        base, x = network(), torch.empty(shape)
    expected = base(x).shape
    layers = [base.get_submodule(path) for path in factors]
    try:
        output = get_peft_model(base, config(factors))(x)
        output.sum().backward()
        if output.shape != expected:
            raise RuntimeError(f"output {tuple(output.shape)}, the base's is {tuple(expected)}")
    except (ValueError, RuntimeError) as error:
        raise Unsuitable(explain(layers, next(iter(factors.values())), error)) from error


def adapt_with_peft(model: nn.Module, factors: dict[str, Factors]) -> PeftModel:
    """The model with PEFT's adapters, which hold these factors where they have the same shapes."""
    adapted = get_peft_model(model, config(factors))
    for path, pair in factors.items():
        set_factors(adapted.get_base_model().get_submodule(path), pair)
    return adapted


def explain(layers: list[nn.Module], factors: Factors, error: Exception) -> str:
    """Why PEFT failed, in fewer words than the error where the cause is known."""
    convs = [layer for layer in layers if isinstance(layer, nn.Conv1d)]
    if any(factors.b.shape[1] % conv.groups for conv in convs):
        return "PEFT takes only ranks that are multiples of the groups"
    if any(conv.dilation[0] > 1 for conv in convs):
        return "PEFT does not pass the dilation on to A"
    return f"PEFT: {error}"


def pair_of(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def set_factors(layer: nn.Module, factors: Factors) -> None:
    a, b = pair_of(layer)
    if a.shape == factors.a.shape:
        a.data.copy_(factors.a)
        b.data.copy_(factors.b.view_as(b))


@torch.no_grad()
def difference(adapted: PeftModel, factors: dict[str, Factors], x: torch.Tensor, expected: torch.Tensor) -> str | None:
    """How PEFT's function differs from that of the folded weight, if it does."""
    model = adapted.get_base_model()
    if any(pair_of(model.get_submodule(path))[0].shape != pair.a.shape for path, pair in factors.items()):
        return "real PEFT, whose A reads the channels of all groups"
    if (adapted(x) - expected).abs().max() > AGREE * expected.abs().max():
        return "real PEFT, whose output is not that of the merged weight"
    return None
