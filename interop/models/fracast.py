"""Fracast with the weights of its package: lowrank forecasts what the package forecasts, before an adapter and after it."""

import json
from importlib.resources import files
from pathlib import Path
from shutil import copyfile

import numpy as np
from fracast import FracastModel
from safetensors.torch import load_file

from lowrank import Lowrank
from tally import Tally

# Of the largest value of a series.
CLOSE = 1e-4

RUN = """
[model]
base = "base"
[data]
manifest = "manifest.csv"
[lora]
r = 4
lora_alpha = 8
target_modules = "all-layers"
group_mode = "shared"
rank_pattern = { dw = 3 }
bias = "all"
[train]
max_steps = 3
batch_size = 2
learning_rate = 1e-2
"""


def series() -> dict[str, np.ndarray]:
    """Longer than a context, shorter, with gaps, and without a season; each as the package wants it."""
    random = np.random.default_rng(0)
    time = np.arange(2500)
    wave = 40 + 9 * np.sin(2 * np.pi * time / 48) + 3 * np.sin(2 * np.pi * time / 336) + random.standard_normal(2500)
    gaps = wave.copy()
    gaps[random.integers(0, 2500, 300)] = np.nan
    walk = random.standard_normal(2500).cumsum()
    return {name: values.astype(np.float32) for name, values in (("long", wave), ("short", wave[:100]), ("gaps", gaps), ("walk", walk))}


def make_base(folder: Path):
    weights = files("fracast") / "weights"
    folder.mkdir(parents=True)
    copyfile(str(weights / "model.safetensors"), folder / "model.safetensors")
    config = json.loads((weights / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "fracast"} | config))


def write(folder: Path) -> list[Path]:
    paths = []
    for name, values in series().items():
        paths.append(folder / f"{name}.csv")
        lines = ["" if np.isnan(value) else repr(float(value)) for value in values]
        # A line of its own for a missing value: CSV leaves out empty ones.
        paths[-1].write_text("step,value\n" + "".join(f"t{step},{line}\n" for step, line in enumerate(lines)))
    return paths


def forecasts(binary: Lowrank, base: Path, paths: list[Path], output: Path, *flags: object) -> list[np.ndarray]:
    """What lowrank says follows each series: steps, then quantiles."""
    inputs = [word for path in paths for word in ("--input", path)]
    binary.run("predict", "--model", base, *inputs, "--output", output, *flags)
    said = [json.loads(line) for line in output.read_text().splitlines()]
    return [np.array(list(line["quantiles"].values())).T for line in said]


def compare(found: list[np.ndarray], model: FracastModel):
    for (name, values), said in zip(series().items(), found, strict=True):
        expected = model.forecast(values)
        worst = np.abs(said - expected).max() / np.nanmax(np.abs(values))
        assert worst <= CLOSE, f"{name}: forecasts differ by up to {worst:.3g} of the largest value"


def check(tally: Tally, binary: Lowrank, scratch: Path):
    folder = scratch / "fracast"
    base, run = folder / "base", folder / "run"
    with tally.check("Fracast forecasts what its package forecasts"):
        make_base(base)
        paths = write(folder)
        plain = forecasts(binary, base, paths, folder / "plain.jsonl")
        compare(plain, FracastModel.from_pretrained(weights="fp32"))
    with tally.check("an adapter on all its layers, merged, is the package's model with other weights"):
        (folder / "run.toml").write_text(RUN)
        (folder / "manifest.csv").write_text("path,series,start\nlong.csv,value,2100\n")
        binary.train(folder / "run.toml", run)
        merged = binary.merge(base, run / "adapter", folder / "merged")
        assert merged.keys() == load_file(base / "model.safetensors").keys()
        adapted = forecasts(binary, base, paths, folder / "adapted.jsonl", "--adapter", run / "adapter")
        assert max(np.abs(before - after).max() for before, after in zip(plain, adapted)) > 0.01, "the adapter changes nothing"
        compare(adapted, FracastModel.from_pretrained(folder / "merged", weights="fp32"))
    with tally.check("a base that lowrank trains whole is one for the package"):
        (folder / "full.toml").write_text(RUN.split("[lora]")[0] + "[train]" + RUN.split("[train]")[1])
        binary.train(folder / "full.toml", folder / "full")
        tuned = forecasts(binary, folder / "full/model", paths, folder / "tuned.jsonl")
        compare(tuned, FracastModel.from_pretrained(folder / "full/model", weights="fp32"))
