"""Make `combined/`: adapters that Hugging Face PEFT made of others with `add_weighted_adapter`, and those others.

    python -m pip install -r requirements.txt
    python make_combined.py                # into combined/
    python make_combined.py --output DIR   # elsewhere, to compare

Two models: `factors` has every kind of layer, for the types that combine A and B; `deltas` has the kinds for which PEFT can decompose a delta.
The `dare` types are random in PEFT, so that they are here at a density of 1, where nothing is dropped.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

# PEFT keeps target_modules in a set and writes it in the set's order, which the hash seed decides.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})

import peft
import torch
from torch import nn

from chain import Chain, gpt2_linear
from randomise import randomise

# r and alpha of each adapter; all are on every layer.
ADAPTERS = {"a": (3, 6), "b": (3, 1), "c": (2, 4)}


def layers(convolutions: dict[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    plain = {"fc": nn.Linear(7, 5, bias=False), "c_attn": gpt2_linear(6, 8), "emb": nn.Embedding(9, 5)}
    return list((plain | convolutions).items())


MODELS = {
    "factors": lambda: layers({"conv1": nn.Conv1d(4, 6, 3), "conv2": nn.Conv2d(3, 4, (2, 3)), "conv3": nn.Conv3d(2, 3, (2, 1, 2))}),
    "deltas": lambda: layers({"conv2": nn.Conv2d(3, 4, (2, 3)), "point": nn.Conv2d(5, 4, 1)}),
}

TWO = {"adapters": ["a", "b"], "weights": [0.7, -1.5]}
THREE = {"adapters": ["a", "b", "c"], "weights": [1.0, -0.5, 2.0]}
CASES = {
    "factors": {
        "linear": TWO,
        "linear_negative": {"adapters": ["a", "b"], "weights": [-1.0, -2.0], "combination_type": "linear"},
        "cat": THREE,
        "ties": TWO | {"density": 0.6},
        "ties_frequency": TWO | {"combination_type": "ties", "density": 0.4, "majority_sign_method": "frequency"},
        "magnitude_prune": TWO | {"density": 0.5},
        "dare_linear": TWO | {"density": 1.0},
        "dare_ties": TWO | {"density": 1.0},
    },
    "deltas": {
        "svd": THREE,
        "svd_rank": THREE | {"combination_type": "svd", "svd_rank": 2},
        "ties_svd": THREE | {"density": 0.6},
        "ties_svd_frequency": THREE | {"combination_type": "ties_svd", "density": 0.9, "majority_sign_method": "frequency"},
        "magnitude_prune_svd": THREE | {"density": 0.5, "svd_rank": 4},
        "dare_linear_svd": THREE | {"density": 1.0},
        "dare_ties_svd": THREE | {"density": 1.0},
    },
}


def save(model: peft.PeftModel, names: list[str], folder: Path):
    model.save_pretrained(folder, selected_adapters=names)
    for card in folder.rglob("README.md"):
        card.unlink()


def make(name: str, cases: dict[str, dict], folder: Path) -> list[dict]:
    torch.manual_seed(len(name))
    base = MODELS[name]()
    targets = [path for path, _ in base]
    model = None
    for adapter, (r, alpha) in ADAPTERS.items():
        config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)
        if model is None:
            model = peft.get_peft_model(Chain(base), config, adapter_name=adapter)
        else:
            model.add_adapter(adapter, config)
    randomise(model, own_group_only=False)
    save(model, list(ADAPTERS), folder)
    made = []
    for case, settings in cases.items():
        settings = {"combination_type": case} | settings
        model.add_weighted_adapter(adapter_name=case, **settings)
        save(model, [case], folder)
        made.append({"model": name, "combined": case} | settings)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "combined")
    output = parser.parse_args().output
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    shutil.rmtree(output, ignore_errors=True)
    made = [case for name, cases in CASES.items() for case in make(name, cases, output / name)]
    rows = ",\n  ".join(json.dumps(case) for case in made)
    (output / "cases.json").write_text(f"[\n  {rows}\n]\n")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{len(made)} cases, {size:,} bytes")


if __name__ == "__main__":
    main()
