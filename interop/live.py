"""The program that makes adapters live on Burn models (`crates/lowrank-burn/examples/live.rs`), and what it leaves behind."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file


@dataclass
class Outcome:
    """`y`: unmerged. `off`: switched off. `start`: as attached. `again`: saved and loaded. `folded`: as Burn's own layers see it."""

    outputs: dict[str, torch.Tensor]
    # The merged model's tensors.
    merged: dict[str, torch.Tensor]
    error: str | None
    merge_error: str | None
    # Whether unmerging gave back the bits of the base.
    restored: bool | None
    # Where each adapter was saved again.
    saved: Path


class Live:
    def __init__(self, binary: Path):
        self.binary = binary

    def run(self, folders: list[Path]):
        """All cases in one process."""
        done = subprocess.run([self.binary, *folders], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{self.binary} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"

    @staticmethod
    def read(folder: Path) -> Outcome:
        ours = folder / "ours"
        said = json.loads((ours / "outcome.json").read_text())
        tensors = load_file(ours / "outcome.safetensors")
        outputs = {name.removeprefix("y.") if name != "y" else "y": value for name, value in tensors.items() if not name.startswith("merged.")}
        merged = {name.removeprefix("merged."): value for name, value in tensors.items() if name.startswith("merged.")}
        return Outcome(outputs, merged, said["error"], said["merge_error"], said["restored"], ours)
