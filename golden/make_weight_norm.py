"""Makes weight_norm/: a base in PyTorch's two forms of weight normalisation, an adapter, and the merged model in every form.

    python make_weight_norm.py

PEFT makes the adapter on the plain model and merges it there: into a layer with weight normalisation it merges without effect.
PEFT has no adapter for ConvTranspose1d, so `up` has one of ours, merged by its definition and checked against torch's layers.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations, remove_weight_norm, weight_norm

# The axis whose lengths `g` holds; PyTorch's default is 0. wav2vec2 has 2 on its positional convolution.
AXES = {"conv": 0, "up": 0, "pos": 2, "fc": 0}
R, ALPHA = 2, 6


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.up = nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1)
        self.pos = nn.Conv1d(6, 6, 4, padding=2, groups=3)
        self.fc = nn.Linear(5, 4)
        # Without weight normalisation and without an adapter.
        self.plain = nn.Linear(4, 2)


def normed(tensors: dict[str, torch.Tensor], normalise) -> dict[str, torch.Tensor]:
    """The same model with weight normalisation: `g` is the lengths of what is there."""
    model = Model()
    model.load_state_dict(tensors)
    for name, axis in AXES.items():
        normalise(getattr(model, name), dim=axis)
    return model.state_dict()


def folded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that the layers compute with, as PyTorch leaves them when it takes the normalisation off."""
    model = Model()
    for name, axis in AXES.items():
        weight_norm(getattr(model, name), dim=axis)
    model.load_state_dict(tensors)
    for name in AXES:
        remove_weight_norm(getattr(model, name))
    return model.state_dict()


def contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def check_peft(tensors: dict[str, torch.Tensor], normalise) -> None:
    """What the documentation says of PEFT: merged, the layer computes what its base does."""
    model = Model()
    normalise(model.conv)
    model.load_state_dict(model.state_dict() | {"conv.bias": tensors["conv.bias"]})
    x = torch.randn(2, 3, 9)
    before = model.conv(x)
    adapted = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["conv"], init_lora_weights=False))
    beside = adapted.base_model.model.conv(x)
    merged = adapted.merge_and_unload().conv(x)
    assert not torch.allclose(beside, before, atol=1e-2), "the adapter has no effect"
    assert torch.allclose(merged, before, atol=1e-5), "PEFT's merge has an effect"


def own_adapter(folder: Path, base: nn.ConvTranspose1d) -> torch.Tensor:
    """Adds factors for `up` to PEFT's files; returns the merged weight."""
    a, b = torch.randn(R, 4, 4), torch.randn(6, R, 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors |= {"base_model.model.up.lora_A.weight": a, "base_model.model.up.lora_B.weight": b}
    save_file(contiguous(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = sorted([*config["target_modules"], "up"])
    config["lowrank"] = {"conv_transpose": ["up"]}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    scale = ALPHA / R
    merged = base.weight + scale * torch.einsum("op,pit->iot", b[:, :, 0], a)
    with torch.no_grad():
        x = torch.randn(2, 4, 7)
        options = {"stride": base.stride, "padding": base.padding}
        h = nn.functional.conv_transpose1d(x, a.transpose(0, 1), **options)
        beside = base(x) + scale * nn.functional.conv1d(h, b)
        inside = nn.functional.conv_transpose1d(x, merged, base.bias, **options)
        assert torch.allclose(beside, inside, atol=1e-4), "the delta is not what the factors do"
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weight_norm")
    output = parser.parse_args().output
    torch.manual_seed(0)
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)

    base = normed(Model().state_dict(), weight_norm)
    # As after a training: `g` is not the length of `v`.
    for layer in AXES:
        base[f"{layer}.weight_g"] = 0.5 + torch.rand_like(base[f"{layer}.weight_g"])
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    rename = lambda name: ".".join([name.split(".")[0], renamed.get(name.split(".")[1], name.split(".")[1])])
    forms = {"hooks": base, "parametrizations": {rename(name): tensor for name, tensor in base.items()}}
    normalise = {"hooks": weight_norm, "parametrizations": parametrizations.weight_norm}
    plain = folded(base)

    model = Model()
    model.load_state_dict(plain)
    config = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["conv", "fc"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(output / "adapter")
    (output / "adapter" / "README.md").unlink(missing_ok=True)
    merged = adapted.merge_and_unload().state_dict()
    original = Model()
    original.load_state_dict(plain)
    merged["up.weight"] = own_adapter(output / "adapter", original.up)

    for form, tensors in forms.items():
        check_peft(tensors, normalise[form])
        loaded = Model()
        for name, axis in AXES.items():
            normalise[form](getattr(loaded, name), dim=axis)
        loaded.load_state_dict(tensors)
        save_file(contiguous(tensors), output / f"base.{form}.safetensors", metadata={"format": "pt"})
        save_file(contiguous(normed(merged, normalise[form])), output / f"merged.{form}.safetensors", metadata={"format": "pt"})
    save_file(contiguous(plain), output / "base.safetensors", metadata={"format": "pt"})
    save_file(contiguous(merged), output / "merged.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
