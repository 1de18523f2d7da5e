"""Adapters that PEFT makes on the example's TCN, in several configurations, merged by lowrank as PEFT merges them."""

from pathlib import Path

import peft
import torch
from safetensors.torch import load_file

from closeness import assert_same
from lowrank import Lowrank
from randomise import randomise
from tally import Tally
from tcn import fold_weight_norm, load_tcn

TARGETS = ["stem", "conv1", "conv2", "head"]
VARIANTS = {
    "plain": {"target_modules": TARGETS},
    "convolutions only, by regular expression": {"target_modules": r"stem|blocks\.\d+\.conv[12]"},
    "rsLoRA": {"target_modules": TARGETS, "use_rslora": True},
    "rank and alpha patterns": {
        "target_modules": TARGETS,
        "rank_pattern": {r"blocks\.0\.conv1": 2, "head": 3},
        "alpha_pattern": {"conv2": 4, "^stem": 1},
    },
    "DoRA": {"target_modules": TARGETS, "use_dora": True},
    "lora_bias": {"target_modules": TARGETS, "lora_bias": True},
    "trained biases": {"target_modules": ["conv1", "conv2"], "bias": "all"},
    "head saved whole": {"target_modules": ["conv1", "conv2"], "modules_to_save": ["head"]},
}


def check(tally: Tally, binary: Lowrank, watch: Path, scratch: Path):
    base = watch / "base"
    for number, (name, variant) in enumerate(VARIANTS.items()):
        with tally.check(f"PEFT on the TCN, {name}: lowrank merges it as PEFT"):
            torch.manual_seed(number)
            config = peft.LoraConfig(r=8, lora_alpha=16, init_lora_weights=False, **variant)
            model = peft.get_peft_model(load_tcn(base), config)
            randomise(model, own_group_only=False)
            adapter = scratch / f"tcn-{number}"
            model.save_pretrained(adapter)
            expected = model.merge_and_unload().state_dict()
            found = binary.merge(base, adapter, scratch / f"tcn-{number}-merged")
            assert_same(fold_weight_norm(found), expected, fold_weight_norm(load_file(base / "model.safetensors")))
