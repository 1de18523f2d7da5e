"""An adapter that lowrank trains on real data: PEFT loads it whole, and the merged PyTorch model predicts what lowrank predicts."""

import json
import warnings
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file

from lowrank import Lowrank
from tally import Tally
from tcn import load_tcn, read_config
from windows import read_window

MANIFEST, SPLIT = "s09_left.csv", "test"
LOGITS = 1e-4


def check_config(adapter: Path):
    """PEFT knows every key, and every key PEFT writes is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = peft.PeftConfig.from_pretrained(adapter)
    assert isinstance(config, peft.LoraConfig), f"read as {type(config).__name__}"
    written = json.loads((adapter / "adapter_config.json").read_text())
    expected = peft.LoraConfig().to_dict().keys() - {"runtime_config"}
    assert written.keys() == expected, f"missing {sorted(expected - written.keys())}, extra {sorted(written.keys() - expected)}"


def load_with_peft(base: Path, adapter: Path) -> peft.PeftModel:
    with warnings.catch_warnings():
        # PEFT reports missing adapter keys as a warning only.
        warnings.simplefilter("error")
        return peft.PeftModel.from_pretrained(load_tcn(base), adapter)


def check_keys(model: peft.PeftModel, adapter: Path):
    """Loading once more through `load_adapter` returns what was missing and unexpected, and the file's names and shapes are those PEFT would save."""
    result = model.load_adapter(adapter, adapter_name="again")
    assert not result.missing_keys, f"missing {result.missing_keys}"
    assert not result.unexpected_keys, f"unexpected {result.unexpected_keys}"
    found = {name: tuple(tensor.shape) for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    saved = {name: tuple(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(model).items()}
    assert found == saved, f"file has {found}, PEFT would save {saved}"
    model.delete_adapter("again")


def check_logits(binary: Lowrank, watch: Path, adapter: Path, model: torch.nn.Module, output: Path):
    config = read_config(watch / "base")
    manifest = watch / MANIFEST
    predictions = binary.predict(watch / "base", adapter, manifest, SPLIT, output)
    assert predictions, "no predictions"
    windows = torch.stack([read_window(prediction, manifest, config) for prediction in predictions])
    with torch.no_grad():
        expected = model(windows)
    found = torch.stack([prediction.logits for prediction in predictions])
    worst = (found - expected).abs().max().item()
    assert worst <= LOGITS, f"logits differ by up to {worst:.3g} over {len(predictions)} windows"
    right = [config.labels[row.argmax()] == prediction.label for row, prediction in zip(expected, predictions)]
    print(f"      {len(predictions)} windows, {sum(right) / len(right):.3f} right, logits within {worst:.2g}")


def check(tally: Tally, binary: Lowrank, watch: Path, scratch: Path):
    check_run(tally, binary, watch, scratch / "trained", "the adapter of examples/watch")
    check_run(tally, binary, watch, scratch / "trained-dora", "it with DoRA", "--use-dora")


def check_run(tally: Tally, binary: Lowrank, watch: Path, run: Path, name: str, *settings: str):
    adapter = run / "adapter"
    with tally.check(f"lowrank trains {name}"):
        binary.train(watch / "adapt.toml", run, *settings)
    with tally.check("PEFT reads its configuration and misses no key"):
        check_config(adapter)
    with tally.check("PEFT loads its weights with none missing and none unexpected"):
        check_keys(load_with_peft(watch / "base", adapter), adapter)
    with tally.check("merged by PEFT, the PyTorch model predicts what lowrank predicts"):
        base, merged = load_tcn(watch / "base"), load_with_peft(watch / "base", adapter).merge_and_unload()
        changed = [name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, base.state_dict()[name])]
        assert changed, "the trained adapter changes no weight"
        check_logits(binary, watch, adapter, merged.eval(), run / "predictions.jsonl")
