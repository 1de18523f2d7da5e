"""The windows of recordings that lowrank's predictions are about, cut again from the files."""

from pathlib import Path

import numpy as np
import torch

from lowrank import Prediction
from tcn import TcnConfig


def read_window(prediction: Prediction, manifest: Path, config: TcnConfig) -> torch.Tensor:
    """`(channels, samples)`, normalised as the model wants it, from an NPY file of `(samples, channels)`."""
    beside, from_here = manifest.parent / prediction.path, Path(prediction.path)
    recording = np.load(beside if beside.exists() else from_here)
    # A window lasts fewer seconds than it has samples: that is how the unit of start and end is known.
    in_seconds = prediction.end - prediction.start < config.window
    start = round(prediction.start * config.sample_rate) if in_seconds else int(prediction.start)
    window = recording[start : start + config.window].astype(np.float32)
    assert window.shape == (config.window, config.in_channels), f"{prediction.path}: window of shape {window.shape} at {start}"
    return ((torch.from_numpy(window) - config.mean) / config.std).T
