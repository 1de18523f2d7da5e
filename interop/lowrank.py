"""The lowrank command line as the checks use it: the one place that spells its arguments and reads what it writes."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file


@dataclass
class Prediction:
    path: str
    # In seconds from the beginning of the recording, or in samples: `windows.py` tells them apart.
    start: float
    end: float
    label: str
    logits: torch.Tensor


class Refused(Exception):
    """lowrank ended with an error; the text is what it said."""


class Lowrank:
    def __init__(self, binary: Path):
        self.binary = binary

    def run(self, *arguments: object):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise Refused(f"exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")

    def train(self, config: Path, output: Path, *settings: str):
        self.run("train", config, "--output", output, *settings)

    def merge(self, base: Path, adapter: Path, output: Path) -> dict[str, torch.Tensor]:
        """`base` and `output` are model folders, or single safetensors files."""
        self.run("merge", "--base", base, "--adapter", adapter, "--output", output)
        return load_file(output / "model.safetensors" if output.is_dir() else output)

    def combine(self, adapters: list[Path], weights: list[float], output: Path, settings: dict):
        """`settings` has PEFT's names: each is a flag."""
        flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        self.run("combine", *adapters, f"--weights={','.join(map(str, weights))}", "--output", output, *flags)

    def resize(self, adapter: Path, output: Path, **cut: float):
        """`cut` is a rank or an energy."""
        self.run("resize", adapter, "--output", output, *(f"--{name}={value}" for name, value in cut.items()))

    def extract(self, base: Path, tuned: Path, output: Path, *flags: str, **cut: float):
        self.run("extract", base, tuned, "--output", output, *flags, *(f"--{name}={value}" for name, value in cut.items()))

    def convert(self, adapter: Path, output: Path, to: str, *flags: str, **settings: object):
        """`settings` are flags with a value: base, prefix, groups."""
        self.run("convert", adapter, "--to", to, "--output", output, *flags, *(f"--{name}={value}" for name, value in settings.items()))

    def predict(self, base: Path, adapter: Path, manifest: Path, split: str, output: Path) -> list[Prediction]:
        self.run(
            "predict", "--model", base, "--adapter", adapter, "--manifest", manifest, "--split", split, "--output", output
        )
        return [read_prediction(line) for line in output.read_text().splitlines()]


def read_prediction(line: str) -> Prediction:
    record = json.loads(line)
    return Prediction(record["path"], record["start"], record["end"], record["label"], torch.tensor(record["logits"]))
