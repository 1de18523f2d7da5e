"""Resident memory of this process, from Linux's /proc."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from step import StepWorkload

STEPS = 3


def resident() -> dict:
    """Kilobytes in memory now and at most."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss_kb": int(status["VmRSS"].split()[0]), "peak_kb": int(status["VmHWM"].split()[0])}


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def warm_up() -> None:
    """A small training step, so that the libraries' code is in memory before anything is measured."""
    conv = nn.Conv1d(16, 16, 3, padding=1)
    logits = conv(torch.ones(2, 16, 64, requires_grad=True)).mean(dim=2)
    F.cross_entropy(logits, torch.zeros(2, dtype=torch.long)).backward()
    torch.optim.AdamW(conv.parameters(), fused=True).step()


def measure_step(model: str, peer: str, batch: int) -> dict:
    """The peak of building a network and training it for a few steps, above the idle process."""
    warm_up()
    idle = resident()["rss_kb"]
    reset_peak()
    workload = StepWorkload(model, batch, only=peer)
    for _ in range(STEPS):
        workload.step(workload.peers[peer])
    peak = resident()["peak_kb"]
    return {"idle_kb": idle, "peak_kb": peak, "step_kb": peak - idle}
