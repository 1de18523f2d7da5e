"""Adapters that lowrank resized, or extracted from merged weights: PEFT loads them, and merges them to the same weights again."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from combined_adapters import assert_close, make, merged, models
from lowrank import Lowrank
from random_models import describe
from tally import Tally


def check(tally: Tally, binary: Lowrank, seeds: int, scratch: Path):
    for seed, rng, base, config in models(seeds):
        folder = scratch / f"remade-{seed}"
        [adapter] = make(rng, base, config, 1, False, folder)
        with tally.check(f"resize {seed}: {describe(base, config)}"):
            # Above every rank there is, and at one that keeps all.
            binary.resize(adapter, folder / "grown", rank=13)
            assert_close(merged(base, folder / "grown"), merged(base, adapter), base.state_dict())
            binary.resize(folder / "grown", folder / "shrunk", energy=1.0)
            assert_close(merged(base, folder / "shrunk"), merged(base, adapter), base.state_dict())
        if can_be_told(base):
            with tally.check(f"extract {seed}: {describe(base, config)}"):
                expected = merged(base, adapter)
                for name, state in [("base", base.state_dict()), ("tuned", expected)]:
                    save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")
                # A bias that changed goes with --save only; without, it is listed.
                binary.extract(folder / "base.safetensors", folder / "tuned.safetensors", folder / "extracted", "--save", rank=1000)
                assert_close(merged(base, folder / "extracted"), expected, base.state_dict())


def can_be_told(base) -> bool:
    """Whether a checkpoint says what every layer is: these models do not call embeddings so, and a square weight may be either kind."""
    layers = [module for module in base.modules() if getattr(module, "weight", None) is not None]
    square = any(layer.weight.dim() == 2 and layer.weight.shape[0] == layer.weight.shape[1] for layer in layers)
    return not square and not any(isinstance(layer, nn.Embedding) for layer in layers)
