"""Random geometries of one Conv1d, from construction to merge: what PEFT gets done, and that lowrank does all of them."""

import random
from collections.abc import Callable
from pathlib import Path

import peft
import torch
from torch import nn

import live_cases
from chain import Chain
from features import Features
from live import Live
from live_models import Drawn, told_apart
from tally import Tally


def draw(rng: random.Random) -> Drawn:
    # A half of them without each of what PEFT forgets, or all would be lost on it.
    kernel, dilation = rng.randint(1, 31), rng.choice([1, rng.randint(1, 8)])
    span = dilation * (kernel - 1) + 1
    padding = rng.randint(0, span // 2)
    # Reflection needs a signal that is longer than what is added.
    length = max(span - 2 * padding, padding + 1) + rng.randint(0, 24)
    groups = rng.choice([1, 1, 1, 2, 3, 4])
    inputs, outputs = groups * rng.randint(1, 4), groups * rng.randint(1, 4)
    if rng.random() < 0.2:
        groups = inputs
        outputs = groups * rng.randint(1, 2)
    layer = nn.Conv1d(
        inputs,
        outputs,
        kernel,
        stride=rng.randint(1, 5),
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=rng.choice(["zeros", rng.choice(["reflect", "replicate", "circular"])]),
        bias=rng.random() < 0.7,
    )
    config = peft.LoraConfig(r=rng.randint(1, 8), lora_alpha=rng.randint(1, 16), target_modules=["conv"], init_lora_weights=False)
    config.use_dora = told_apart(layer) and rng.random() < 0.3
    return Drawn(Chain([("conv", layer)]).eval(), torch.randn(2, inputs, length), config)


def make(rng: random.Random, folder: Path) -> live_cases.Case:
    drawn = draw(rng)
    mode = "per_group" if drawn.config.r % drawn.groups() == 0 else "shared"
    drawn.features = ["random geometries of Conv1d, from construction to merge"]
    return live_cases.attach(rng, drawn, mode, folder)


def check(tally: Tally, features: Features, live: Live, count: int, seed: int, scratch: Path):
    def maker(number: int) -> Callable[[Path], live_cases.Case]:
        def one(folder: Path) -> live_cases.Case:
            torch.manual_seed(seed * 1_000_003 + number)
            return make(random.Random(f"geometry {seed} {number}"), folder)

        return one

    failed = tally.failed
    cases = live_cases.run(tally, features, live, [maker(number) for number in range(count)], scratch / "geometries")
    stages = {stage: sum(case.stages[stage] for case in cases) for stage in cases[0].stages} if cases else {}
    told = ", ".join(f"{stage} {n}" for stage, n in stages.items())
    print(f"geometries: of {len(cases)} PEFT {told}; lowrank all but {tally.failed - failed}", flush=True)
