"""Makes attention/: an nn.MultiheadAttention with an adapter that PEFT made, the merged model, and what its attention makes of some inputs.

    python make_attention.py

PEFT applies the delta of the output projection twice, in its forward and when it merges (its issue 3774). Here it is merged once, as the
definition of the adapter has it; what PEFT makes of it is checked to be off by just that delta.
"""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

R, ALPHA, WIDTH = 3, 6, 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)


def contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "attention")
    output = parser.parse_args().output
    torch.manual_seed(0)
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)

    base = contiguous(Model().state_dict())
    model = Model()
    model.load_state_dict(base)
    config = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["attn"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(output / "adapter")
    (output / "adapter" / "README.md").unlink(missing_ok=True)
    factors = load_file(output / "adapter" / "adapter_model.safetensors")
    delta = lambda path: ALPHA / R * factors[f"base_model.model.{path}.lora_B.weight"] @ factors[f"base_model.model.{path}.lora_A.weight"]
    merged = dict(base)
    merged["attn.in_proj_weight"] = base["attn.in_proj_weight"] + delta("attn")
    merged["attn.out_proj.weight"] = base["attn.out_proj.weight"] + delta("attn.base_layer.out_proj")

    pefts = adapted.merge_and_unload().state_dict()
    assert torch.allclose(pefts["attn.in_proj_weight"], merged["attn.in_proj_weight"], atol=1e-6)
    twice = merged["attn.out_proj.weight"] + delta("attn.base_layer.out_proj")
    assert torch.allclose(pefts["attn.out_proj.weight"], twice, atol=1e-6), "PEFT applies the delta once now"

    attention = Model()
    attention.load_state_dict(merged)
    attention = attention.attn.eval()
    query, key, value = (torch.randn(2, length, WIDTH) for length in (5, 7, 7))
    with torch.no_grad():
        outputs = {"self": attention(query, query, query)[0], "cross": attention(query, key, value)[0]}
    inputs = {"query": query, "key": key, "value": value}
    save_file(contiguous(inputs | outputs), output / "outputs.safetensors", metadata={"format": "pt"})

    save_file(base, output / "base.safetensors", metadata={"format": "pt"})
    save_file(contiguous(merged), output / "merged.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
