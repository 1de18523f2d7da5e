"""Silero VAD with the package's own weights: lowrank says what the package says, and adapters pass between it and PEFT."""

import json
import wave
from importlib.resources import files
from pathlib import Path

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file

from lowrank import Lowrank
from randomise import randomise
from tally import Tally
from vad import PACKAGE, SileroVad, package_probabilities

RATE = 16000
CONVOLUTIONS = ["conv1", "conv2", "conv3", "conv4"]
# Probabilities, f32.
CLOSE = 1e-4


# The first three formants of a, i, u and e, in Hz.
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)]


def recording(seed: int, seconds: float) -> np.ndarray:
    """A voice, as the network has it: vowels, four a second, in phrases with silence between them."""
    rng = np.random.default_rng(seed)
    frames = int(seconds * RATE / PACKAGE["frame"])
    t = np.arange(frames * PACKAGE["frame"]) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    syllable = np.floor(t * 4).astype(int)
    formants = np.array(VOWELS)[rng.integers(0, len(VOWELS), syllable.max() + 1)][syllable]
    voice = np.zeros_like(t)
    for harmonic in range(1, 30):
        f = harmonic * pitch[:, None]
        response = np.prod(formants**2 / np.hypot(formants**2 - f**2, 90 * f), axis=1)
        voice += response * np.sin(harmonic * phase + rng.uniform(0, 6)) / harmonic
    loud = np.sqrt(np.sin(np.pi * (t * 4 % 1))) * (np.sin(2 * np.pi * 0.3 * t + rng.uniform(0, 6)) > -0.2)
    sound = 0.6 * voice / np.abs(voice).max() * loud + 0.003 * rng.standard_normal(len(t))
    return np.round(32767 * np.clip(sound, -1, 1)).astype("<i2")


def write(path: Path, samples: np.ndarray):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def make_base(folder: Path) -> dict[str, torch.Tensor]:
    weights = load_file(str(files("silero_vad") / "data/silero_vad_16k.safetensors"))
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    signal = {"channels": 1, "sample_rate": RATE, "window": 20 * PACKAGE["frame"], "hop": 20 * PACKAGE["frame"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "silero_vad", "signal": signal}))
    return weights


def network(weights: dict[str, torch.Tensor]) -> SileroVad:
    model = SileroVad(**PACKAGE)
    model.load_state_dict(weights)
    return model.eval()


def probabilities(binary: Lowrank, base: Path, recordings: list[Path], output: Path, *flags: object) -> torch.Tensor:
    inputs = [word for path in recordings for word in ("--input", path)]
    binary.run("predict", "--model", base, *inputs, "--output", output, *flags)
    return torch.tensor([json.loads(line)["probabilities"] for line in output.read_text().splitlines()])


def assert_close(found: torch.Tensor, expected: torch.Tensor):
    assert found.shape == expected.shape, f"{tuple(found.shape)}, expected {tuple(expected.shape)}"
    assert expected.std() > 0.05, "probabilities that hardly differ: a test of nothing"
    worst = (found - expected).abs().max().item()
    assert worst <= CLOSE, f"probabilities differ by up to {worst:.3g}"
    print(f"      {found.numel()} frames, {(expected > 0.5).float().mean():.2f} speech, probabilities within {worst:.2g}")


def check(tally: Tally, binary: Lowrank, scratch: Path):
    folder = scratch / "silero"
    base = folder / "base"
    weights = make_base(base)
    sounds = [recording(seed, 8) for seed in range(3)]
    paths = [folder / f"{number}.wav" for number in range(len(sounds))]
    for path, samples in zip(paths, sounds):
        write(path, samples)
    x = torch.from_numpy(np.stack(sounds).astype(np.float32) / 32768)

    with tally.check("Silero VAD: the package's network with the package's weights says what lowrank says"):
        assert_close(probabilities(binary, base, paths, folder / "base.jsonl"), package_probabilities(weights, x))
    with tally.check("Silero VAD: an adapter of PEFT's"):
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, lora_alpha=2, target_modules=[*CONVOLUTIONS, "final_conv"])
        model = peft.get_peft_model(network(weights), config)
        with torch.no_grad():
            randomise(model, own_group_only=False)
            for name, tensor in model.named_parameters():
                if ".lora_B." in name:
                    tensor.mul_(0.05)
            expected = model(x).sigmoid()
        model.save_pretrained(folder / "peft")
        found = probabilities(binary, base, paths, folder / "peft.jsonl", "--adapter", folder / "peft")
        assert_close(found, expected)
        assert (expected - package_probabilities(weights, x)).abs().max() > 0.01, "the adapter does nothing"
    with tally.check("Silero VAD: an adapter that lowrank trains, in PEFT"):
        adapter = train(binary, base, paths, folder)
        model = peft.PeftModel.from_pretrained(network(weights), adapter)
        with torch.no_grad():
            expected = model(x).sigmoid()
        assert_close(probabilities(binary, base, paths, folder / "own.jsonl", "--adapter", adapter), expected)
        assert (expected - package_probabilities(weights, x)).abs().max() > 0.01, "the adapter does nothing"


def train(binary: Lowrank, base: Path, paths: list[Path], folder: Path) -> Path:
    manifest = folder / "manifest.csv"
    manifest.write_text("path,label\n" + "".join(f"{path.name},{label}\n" for path, label in zip(paths, ["energy", "none", "energy"])))
    (folder / "run.toml").write_text(
        f"""
[model]
base = "{base}"
[data]
manifest = "{manifest}"
[lora]
target_modules = {json.dumps(CONVOLUTIONS)}
[train]
max_steps = 20
batch_size = 8
learning_rate = 1e-2
"""
    )
    binary.train(folder / "run.toml", folder / "run")
    return folder / "run/adapter"
