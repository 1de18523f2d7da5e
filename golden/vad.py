"""Silero VAD in PyTorch, under the names of `silero_vad_16k.safetensors`.

The package `silero-vad` carries its network as TorchScript, whose modules PEFT cannot wrap. `assert_same_as_package` holds this one against it.
"""

import torch
import torch.nn.functional as F
from torch import nn

# The keys of lowrank's config.json, as the package has them.
PACKAGE = {"frame": 512, "context": 64, "n_fft": 256, "hop_length": 128, "channels": [128, 64, 64, 128]}
# TorchScript's names for the same parameters.
SCRIPTED = {
    "stft_conv.weight": "stft.forward_basis_buffer",
    **{f"conv{i + 1}.{kind}": f"encoder.{i}.reparam_conv.{kind}" for i in range(4) for kind in ("weight", "bias")},
    **{f"lstm_cell.{kind}": f"decoder.rnn.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    **{f"final_conv.{kind}": f"decoder.decoder.2.{kind}" for kind in ("weight", "bias")},
}


class SileroVad(nn.Module):
    """Recordings `(batch, samples)` of whole frames to logits `(batch, frames)`."""

    def __init__(self, frame: int, context: int, n_fft: int, hop_length: int, channels: list[int]):
        super().__init__()
        self.frame, self.context, self.padding = frame, context, n_fft // 4
        bins = n_fft // 2 + 1
        self.stft_conv = nn.Conv1d(1, 2 * bins, n_fft, stride=hop_length, bias=False)
        widths = [bins, *channels]
        for i, stride in enumerate([1, 2, 2, 1]):
            setattr(self, f"conv{i + 1}", nn.Conv1d(widths[i], widths[i + 1], 3, stride=stride, padding=1))
        self.lstm_cell = nn.LSTMCell(channels[-1], channels[-1])
        self.final_conv = nn.Conv1d(channels[-1], 1, 1)

    def step(self, x: torch.Tensor, state) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The logit `(batch, 1)` of one frame behind its context."""
        spectrum = self.stft_conv(F.pad(x.unsqueeze(1), (0, self.padding), "reflect"))
        real, imaginary = spectrum.chunk(2, dim=1)
        x = (real**2 + imaginary**2).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        state = self.lstm_cell(x.squeeze(-1), state)
        return self.final_conv(state[0].relu().unsqueeze(-1)).squeeze(-1), state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, state, logits = F.pad(x, (self.context, 0)), None, []
        for start in range(self.context, x.shape[1], self.frame):
            logit, state = self.step(x[:, start - self.context : start + self.frame], state)
            logits.append(logit)
        return torch.cat(logits, dim=1)


def package_network(weights: dict[str, torch.Tensor]):
    """The package's own 16 kHz network with other weights, from a frame behind its context and a state to a probability and a state."""
    import silero_vad

    network = silero_vad.load_silero_vad()._model
    own = network.state_dict()
    assert own.keys() == set(SCRIPTED.values()), f"the package's parameters are {sorted(own)}"
    network.load_state_dict({SCRIPTED[name]: tensor for name, tensor in weights.items()})
    return network


def package_probabilities(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What the package's network says about recordings `(batch, samples)`: probabilities `(batch, frames)`."""
    network, (frame, context) = package_network(weights), (PACKAGE["frame"], PACKAGE["context"])
    x, state, found = F.pad(x, (context, 0)), torch.zeros(2, x.shape[0], PACKAGE["channels"][-1]), []
    with torch.no_grad():
        for start in range(context, x.shape[1], frame):
            probability, state = network(x[:, start - context : start + frame], state)
            found.append(probability)
    return torch.cat(found, dim=1)


def assert_same_as_package():
    torch.manual_seed(0)
    model = SileroVad(**PACKAGE)
    x = 0.1 * torch.randn(3, 20 * PACKAGE["frame"])
    with torch.no_grad():
        found = model(x).sigmoid()
    worst = (found - package_probabilities(model.state_dict(), x)).abs().max().item()
    assert worst < 1e-5, f"another network than the package's: off by {worst:.3g}"
