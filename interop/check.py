"""Runs every check between lowrank and PEFT; the last line is "N passed, M failed". Started by `run`."""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "golden"))
# Nothing here may reach for a model hub.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import torch

import combined_adapters
import golden_adapters
import peft_adapters
import random_models
import remade_adapters
import trained_adapter
from lowrank import Lowrank
from models import fracast
from tally import Tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/lowrank")
    parser.add_argument("--watch", type=Path, default=ROOT / "examples/watch", help="folder with base/, adapt.toml and the manifests")
    parser.add_argument("--seeds", type=int, default=50, help="how many random models")
    parser.add_argument("--models", action="store_true", help="the architectures instead: real weights, adapters to PEFT and from it")
    options = parser.parse_args()

    torch.set_num_threads(2)
    warnings.filterwarnings("ignore")
    tally, binary = Tally(), Lowrank(options.binary.absolute())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.models:
            fracast.check(tally, binary, scratch)
            return tally.close()
        golden_adapters.check(tally, binary, ROOT / "golden/adapters", scratch)
        random_models.check(tally, binary, options.seeds, scratch)
        combined_adapters.check(tally, binary, options.seeds, scratch)
        remade_adapters.check(tally, binary, options.seeds, scratch)
        peft_adapters.check(tally, binary, options.watch, scratch)
        trained_adapter.check(tally, binary, options.watch, scratch)
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
