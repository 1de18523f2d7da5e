"""Models given as a list of (module path, layer), and how a layer is described in JSON."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Layers = list[tuple[str, nn.Module]]


class Chain(nn.Module):
    """Layers at dotted paths, applied one after the other with nothing in between."""

    def __init__(self, layers: Layers):
        super().__init__()
        self.paths = [path for path, _ in layers]
        for path, layer in layers:
            *parents, name = path.split(".")
            parent = self
            for part in parents:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            parent.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for path in self.paths:
            x = self.get_submodule(path)(x)
        return x


class TokenChain(Chain):
    """A chain that tells PEFT where its token embedding is, as transformers models do."""

    def get_input_embeddings(self) -> nn.Module:
        return self.get_submodule("embed_tokens")

    def get_output_embeddings(self) -> None:
        return None


CONVOLUTION = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
FIELDS = {
    "Linear": ["in_features", "out_features"],
    "Conv1D": ["nx", "nf"],
    "Embedding": ["num_embeddings", "embedding_dim"],
    "GroupNorm": ["num_groups", "num_channels", "eps"],
    "BatchNorm1d": ["num_features", "eps"],
    "Conv1d": CONVOLUTION,
    "Conv2d": CONVOLUTION,
    "Conv3d": CONVOLUTION,
}


def describe(layer: nn.Module) -> dict:
    """Class and geometry under PyTorch's own names. `Conv1D` is transformers' transposed linear layer, `Conv1d` the convolution."""
    kind = type(layer).__name__
    described = {"class": kind}
    described |= {name: getattr(layer, name) for name in FIELDS[kind]}
    if kind != "Embedding":
        described["bias"] = layer.bias is not None
    return described


def is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def gpt2_linear(nx: int, nf: int) -> Conv1D:
    layer = Conv1D(nf, nx)
    # transformers starts it at N(0, 0.02) and a zero bias, against which every delta would look large.
    nn.init.normal_(layer.weight, std=nx**-0.5)
    nn.init.normal_(layer.bias)
    return layer
