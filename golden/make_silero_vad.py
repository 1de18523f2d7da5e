"""Makes models/silero_vad: a small Silero VAD with random weights, a PEFT adapter on it, and what PyTorch makes of both.

    python -m pip install -r requirements.txt silero-vad==6.2.3
    python make_silero_vad.py                # into models/silero_vad
    python make_silero_vad.py --output DIR   # elsewhere, to compare
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

# PEFT keeps target_modules in a set and writes it in the set's order, which the hash seed decides.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})

import peft
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from randomise import randomise
from vad import SileroVad, assert_same_as_package

CONFIG = {"frame": 32, "context": 4, "n_fft": 16, "hop_length": 8, "channels": [6, 4, 4, 6]}
TARGETS = ["conv1", "conv2", "conv3", "conv4", "final_conv"]
# Batches of recordings: how many, and frames of each.
INPUTS = {"one_frame": (1, 1), "several": (3, 7), "long": (2, 40)}


def recordings(batch: int, frames: int) -> torch.Tensor:
    x = 0.3 * torch.randn(batch, frames * CONFIG["frame"])
    # Silence, whose magnitudes are zero.
    x[-1, x.shape[1] // 2 : x.shape[1] // 2 + 2 * CONFIG["frame"]] = 0
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "models/silero_vad")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    assert_same_as_package()

    torch.manual_seed(0)
    model = SileroVad(**CONFIG)
    with torch.no_grad():
        # Larger than PyTorch draws them, so that logits differ from frame to frame.
        for tensor in model.parameters():
            tensor.mul_(2)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    io = {f"{name}.x": recordings(*shape) for name, shape in INPUTS.items()}
    with torch.no_grad():
        io |= {f"{name}.base": model(io[f"{name}.x"]) for name in INPUTS}

    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=3, target_modules=TARGETS, init_lora_weights=False))
    randomise(adapted, own_group_only=False)
    for name, (batch, frames) in INPUTS.items():
        labels = (torch.rand(batch, frames) < 0.5).float()
        logits = adapted(io[f"{name}.x"])
        adapted.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        io |= {f"{name}.adapted": logits.detach(), f"{name}.labels": labels, f"{name}.loss": loss.detach().reshape(1)}
        for key, tensor in adapted.named_parameters():
            if tensor.requires_grad:
                key = key.removeprefix("base_model.model.").replace(".default.", ".")
                io[f"{name}.gradient.{key}"] = tensor.grad.clone()

    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    signal = {"channels": 1, "sample_rate": 16000, "window": 8 * CONFIG["frame"], "hop": 8 * CONFIG["frame"]}
    (output / "config.json").write_text(json.dumps({"model_type": "silero_vad", **CONFIG, "signal": signal}, indent=2) + "\n")
    save_file(base, output / "model.safetensors")
    adapted.save_pretrained(output / "adapter")
    (output / "adapter/README.md").unlink(missing_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in io.items()}, output / "io.safetensors")


if __name__ == "__main__":
    main()
