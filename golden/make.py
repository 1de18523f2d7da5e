"""Make `adapters/`: small adapters written by Hugging Face PEFT, with the base they belong to and what PEFT computes with them.

    python -m pip install -r requirements.txt
    python make.py                # all cases, into adapters/
    python make.py --output DIR   # elsewhere, to compare: diff -r adapters DIR

Seeds are fixed: on one machine a second run gives the same bytes.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
import zlib
from pathlib import Path

# PEFT keeps target_modules in a set and writes it in the set's order, which the hash seed decides.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})

import peft
import torch
from safetensors.torch import save_file

from cases import CASES, Case
from chain import Chain, TokenChain, describe
from grouped import merge_by_formula
from randomise import randomise
from rounding import rounds_delta

# How far PEFT's merged output may be from its unmerged one, relative to the largest output, and still be called the same.
AGREE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def build(name: str) -> tuple[Case, Chain]:
    """The case and its base model; the same weights at every call."""
    torch.manual_seed(zlib.crc32(name.encode()))
    case = CASES[name]()
    kind = TokenChain if case.layers[0][0] == "embed_tokens" else Chain
    return case, kind(case.layers).to(case.dtype).eval()


def make_input(case: Case) -> torch.Tensor:
    if case.tokens:
        return torch.randint(case.tokens, case.input)
    return torch.randn(case.input).to(case.dtype)


def adapt(case: Case, base: Chain) -> peft.PeftModel:
    """The base with PEFT's adapters on it, as if trained."""
    first, *others = case.adapters
    model = peft.get_peft_model(
        base, peft.LoraConfig(**case.config), adapter_name=first, autocast_adapter_dtype=case.float32_adapter
    )
    for name in others:
        model.add_adapter(name, peft.LoraConfig(**case.config))
    randomise(model, case.own_group_only)
    return model.eval()


def describe_modules(base: Chain, model: peft.PeftModel, adapter: str) -> list[dict]:
    """Every layer in the order of the forward pass, and for adapted ones the rank, alpha and scaling PEFT gave them."""
    described = []
    for path in base.paths:
        layer = model.get_base_model().get_submodule(path)
        original = getattr(layer, "base_layer", None) or getattr(layer, "original_module", layer)
        row = {"path": path} | describe(original)
        row["adapted"] = adapter in getattr(layer, "r", {})
        if row["adapted"]:
            row |= {"r": layer.r[adapter], "lora_alpha": layer.lora_alpha[adapter], "scaling": layer.scaling[adapter]}
            row["delta_rounded"] = rounds_delta(layer, adapter)
        row["saved_whole"] = hasattr(layer, "modules_to_save")
        described.append(row)
    return described


def forward(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """The output, or None where PEFT cannot compute it: a dilated convolution's bypass has another length than its base."""
    try:
        with torch.no_grad():
            return model(x)
    except RuntimeError:
        return None


def merge(case: Case, model: peft.PeftModel) -> tuple[dict[str, torch.Tensor] | None, str | None]:
    """Merged weights under the base model's names, and who computed them. Uses the model up."""
    try:
        return model.merge_and_unload().state_dict(), "peft"
    except NotImplementedError:
        return (merge_by_formula(model, case.adapters[0]), "formula") if case.own_group_only else (None, None)


def check_reload(name: str, folder: Path, x: torch.Tensor, y: torch.Tensor | None):
    """What was saved must give PEFT, on a fresh base, the output that was recorded."""
    case, base = build(name)
    model = peft.PeftModel.from_pretrained(
        base, folder, adapter_name=case.adapters[0], autocast_adapter_dtype=case.float32_adapter
    )
    again = forward(model.get_base_model(), x)
    assert (y is None and again is None) or torch.equal(y, again), f"{name}: the saved adapter does not give the recorded output"


def contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def to_json(record: dict) -> str:
    """Indented, with one line a module."""
    modules = ",\n    ".join(json.dumps(row) for row in record["modules"])
    return json.dumps(record | {"modules": []}, indent=2).replace('"modules": []', f'"modules": [\n    {modules}\n  ]') + "\n"


def make(name: str, folder: Path) -> dict:
    case, base = build(name)
    folder.mkdir(parents=True)
    save_file(contiguous(base.state_dict()), folder / "base.safetensors")

    x = make_input(case)
    model = adapt(case, base)
    model.save_pretrained(folder / "adapter")
    for card in folder.rglob("README.md"):
        card.unlink()

    first = case.adapters[0]
    adapter = "adapter" if first == "default" else f"adapter/{first}"
    modules = describe_modules(base, model, first)
    # The wrapped network itself: a PeftModel with a task_type calls it with names of its own.
    y = forward(model.get_base_model(), x)
    check_reload(name, folder / adapter, x, y)
    merged, merged_by = merge(case, model)

    tensors = {"x": x}
    agree = None
    if y is not None:
        tensors["y"] = y
    if merged is not None:
        plain = build(name)[1]
        plain.load_state_dict(merged)
        y_merged = forward(plain, x)
        if y is not None:
            gap = (y.double() - y_merged.double()).abs().max() / y_merged.double().abs().max()
            agree = bool(gap <= AGREE[case.dtype])
        if not agree:
            tensors["y_merged"] = y_merged
        tensors |= {f"merged.{key}": value for key, value in merged.items()}
    save_file(contiguous(tensors), folder / "io.safetensors")

    record = {
        "name": name,
        "about": CASES[name].__doc__,
        "adapter": adapter,
        "adapter_name": first,
        "dtype": str(case.dtype).removeprefix("torch."),
        "modules": modules,
        "peft_forward": y is not None,
        "peft_merge": merged_by == "peft",
        "merged_by": merged_by,
        "merged_agrees": agree,
        "made_with": {"peft": peft.__version__, "torch": torch.__version__.split("+")[0]},
    }
    (folder / "case.json").write_text(to_json(record))
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "adapters")
    output = parser.parse_args().output
    warnings.filterwarnings("ignore")
    # One thread and plain kernels: sums in the same order at every run.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(output, ignore_errors=True)
    for name in CASES:
        record = make(name, output / name)
        print(f"{name:28} forward {record['peft_forward']!s:6} merged by {record['merged_by']!s:8} agrees {record['merged_agrees']}")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{len(CASES)} cases, {size:,} bytes")


if __name__ == "__main__":
    main()
