"""A tiny Fracast with random weights, what the package makes of some series with it, and the gradients of an adapter on it.

    python -m pip install -r ../interop/requirements.txt
    python make_fracast.py --output again && diff -r models/fracast again

makes it again. All numbers are random (fixed seed). Another processor may sum in another order and change last digits of `y` and `grad`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from fracast._core.model import build_from_cfg
from fracast.inference import FracastModel
from safetensors.torch import save_file
from torch.nn.utils import parametrize

CONFIG = {
    "model_type": "fracast",
    "model": {
        "d_model": 8, "W": 64, "horizon": 6, "quantiles": [0.1, 0.5, 0.9], "future_queries": 3, "future_patch": 2, "n_stages": 4,
        "dilation_base": 2, "kernel_size": 3, "ffn_mult": 1.5, "scale_cond": "film", "scale_cond_dim": 6, "periodic_topk": 3,
        "periodic_harmonics": 2, "periodic_alpha": 0.05, "periodic_min_period": 2, "head_d_ff": 5, "head_layers": 2,
        "head_fc_layers": 2, "head_fc_kernel": 2, "head_future_conv": True, "head_future_conv_layers": 3,
        "head_future_conv_seed": 16, "head_phase_bins": 8, "share_stages": True, "level_widths": [64],
    },
    "pyramid": {"ratios": []},
}
RANK, SCALE = 2, 2.0


class Delta(torch.nn.Module):
    """`W + s·B·A`, `A` with the kernel of the weight; on a grouped convolution, one `A` for all groups."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(RANK, *weight.shape[1:]) * 0.3)
        self.b = torch.nn.Parameter(torch.randn(weight.shape[0], RANK, *[1] * (weight.dim() - 2)) * 0.3)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + SCALE * (self.b.flatten(1) @ self.a.flatten(1)).reshape(weight.shape)


def series() -> list[np.ndarray]:
    """A whole context with more before it, a short one, one with gaps, one without a season."""
    random = np.random.default_rng(0)
    time = np.arange(90)
    wave = 20 + 3 * np.sin(2 * np.pi * time / 8) + 0.02 * time + 0.3 * random.standard_normal(90)
    gaps = wave.copy()
    gaps[[30, 31, 40, 89]] = np.nan
    return [values.astype(np.float32) for values in (wave, wave[:20], gaps, random.standard_normal(70).cumsum())]


def prepared(rows: list[np.ndarray], width: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Whole rows as `FracastModel` normalises them: values, mask, minimum and range."""
    tails = np.stack([row[-width:] for row in rows])
    low = np.nanmin(tails, axis=1, keepdims=True).astype(np.float64)
    span = np.maximum(np.nanmax(tails, axis=1, keepdims=True) - low, 1e-5)
    mask = np.isfinite(tails)
    values = np.where(mask, (tails - low) / span, 0.0).astype(np.float32)
    return torch.from_numpy(values)[:, None], torch.from_numpy(mask)[:, None], low, span


def forward(core, head, values, mask) -> torch.Tensor:
    hidden = core(values, mask, mask.float())
    return head.forward_horizon(hidden, last_obs=values[:, 0, -1:], ctx=values[:, 0], ctx_mask=mask[:, 0])


def pinball(said: torch.Tensor, target: torch.Tensor, quantiles: list[float]) -> torch.Tensor:
    below = target[:, :, None] - said
    level = torch.tensor(quantiles)
    return torch.maximum(level * below, (level - 1) * below).mean()


def adapt(core, head) -> dict[str, Delta]:
    """An adapter on every linear layer and every depthwise filter, by module path."""
    deltas = {}
    for prefix, root in (("core", core), ("head", head)):
        for path, module in list(root.named_modules()):
            found = [("weight", "")] if isinstance(module, torch.nn.Linear) else []
            found += [("dw_weight", ".dw")] if hasattr(module, "dw_weight") else []
            for name, suffix in found:
                delta = Delta(getattr(module, name))
                parametrize.register_parametrization(module, name, delta)
                deltas[f"{prefix}.{path}{suffix}"] = delta
    return deltas


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "models/fracast")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)

    core, head = build_from_cfg(CONFIG)
    state = {f"{prefix}.{name}": value for prefix, part in (("core", core), ("head", head)) for name, value in part.state_dict().items()}
    with torch.no_grad():
        for name, value in state.items():
            size = 0.4 / max(1, value[0].numel()) ** 0.5 if value.dim() > 1 else 0.1
            value.copy_(torch.randn_like(value) * size + (1.0 if "norm" in name else 0.0))
    save_file({name: value.contiguous() for name, value in state.items()}, output / "model.safetensors", metadata={"format": "pt"})
    (output / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")

    tensors = {}
    model = FracastModel(core, head, CONFIG)
    for number, values in enumerate(series()):
        tensors[f"x.{number}"] = torch.from_numpy(values)
        tensors[f"y.{number}"] = torch.from_numpy(model.forecast(values).astype(np.float32))

    keys = CONFIG["model"]
    horizon = keys["horizon"]
    rows = [values for values in series() if len(values) >= keys["W"] + horizon]
    values, mask, low, span = prepared([row[:-horizon] for row in rows], keys["W"])
    with torch.no_grad():
        said = forward(core, head, values, mask).numpy() * span[:, None] + low[:, None]
    known = np.stack([model.forecast(row[:-horizon]) for row in rows])
    assert np.allclose(said, known, rtol=1e-5), "not the package's own normalisation"

    target = np.stack([np.nan_to_num(row[-horizon:], nan=21.0) for row in rows])
    deltas = adapt(core, head)
    loss = pinball(forward(core, head, values, mask), torch.from_numpy(((target - low) / span).astype(np.float32)), keys["quantiles"])
    loss.backward()
    tensors["loss"] = loss.detach().reshape(1)
    for number, (row, future) in enumerate(zip(rows, target)):
        tensors[f"history.{number}"] = torch.from_numpy(row[:-horizon].copy())
        tensors[f"target.{number}"] = torch.from_numpy(future.astype(np.float32))
    for path, delta in deltas.items():
        for name, factor in (("lora_A", delta.a), ("lora_B", delta.b)):
            tensors[f"{path}.{name}.weight"] = factor.detach()
            tensors[f"grad.{path}.{name}.weight"] = factor.grad
    save_file({name: value.contiguous() for name, value in tensors.items()}, output / "io.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
