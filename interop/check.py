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
import geometries
import golden_adapters
import live_cases
import lycoris_adapters
import peft_adapters
import random_models
import remade_adapters
import token_rows
import trained_adapter
import transformers_models
from features import Features
from live import Live
from lowrank import Lowrank
from models import fracast, silero, whisper
from tally import Tally

MODELS = [fracast, silero, whisper, transformers_models]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/lowrank")
    parser.add_argument("--watch", type=Path, default=ROOT / "examples/watch", help="folder with base/, adapt.toml and the manifests")
    parser.add_argument("--live", type=Path, default=ROOT / "target/release/examples/live", help="the program that makes adapters live")
    parser.add_argument("--seeds", type=int, default=50, help="how many random models are merged, combined and resized by the command")
    parser.add_argument("--cases", type=int, default=300, help="how many random models are made live, and how many geometries of Conv1d")
    parser.add_argument("--seed", type=int, default=0, help="which models and geometries")
    parser.add_argument("--models", action="store_true", help="the architectures instead: their weights, adapters to PEFT and from it")
    options = parser.parse_args()

    torch.set_num_threads(2)
    warnings.filterwarnings("ignore")
    tally, features = Tally(), Features()
    binary, live = Lowrank(options.binary.absolute()), Live(options.live.absolute())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.models:
            for model in MODELS:
                model.check(tally, binary, scratch)
        else:
            check_adapters(tally, features, binary, live, options, scratch)
    features.show()
    return tally.close()


def check_adapters(tally: Tally, features: Features, binary: Lowrank, live: Live, options: argparse.Namespace, scratch: Path):
    live_cases.check(tally, features, live, options.cases, options.seed, scratch)
    geometries.check(tally, features, live, options.cases, options.seed, scratch)
    golden_adapters.check(tally, binary, ROOT / "golden/adapters", scratch)
    random_models.check(tally, binary, options.seeds, scratch)
    combined_adapters.check(tally, features, binary, options.seeds, scratch)
    remade_adapters.check(tally, binary, options.seeds, scratch)
    lycoris_adapters.check(tally, binary, options.seeds, scratch)
    token_rows.check(tally, binary, options.seeds, scratch)
    peft_adapters.check(tally, binary, options.watch, scratch)
    trained_adapter.check(tally, binary, options.watch, scratch)


if __name__ == "__main__":
    sys.exit(main())
