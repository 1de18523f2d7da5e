"""Make `lycoris/`: adapters in the form of LyCORIS and kohya, with the base they belong to and the weights that LyCORIS merges them to.

    python -m pip install -r ../interop/requirements.txt
    python make_lycoris.py                # into lycoris/
    python make_lycoris.py --output DIR   # elsewhere, to compare

Modules are LyCORIS's own, and so is the way from the file to the merged weights (`create_lycoris_from_weights`, `merge_to`).
"""

import argparse
import copy
import logging
import shutil
import warnings
from pathlib import Path

import torch
from lycoris import LycorisNetwork, create_lycoris_from_weights
from lycoris.logging import logger
from lycoris.modules.locon import LoConModule
from safetensors.torch import save_file
from torch import nn

from chain import Chain

PREFIX = "lycoris"


def plain() -> Chain:
    return Chain(
        [
            ("down_blocks.0.attn1.to_q", nn.Linear(12, 10)),
            ("down_blocks.0.proj_in", nn.Linear(7, 7, bias=False)),
            ("down_blocks.0.conv1", nn.Conv1d(5, 6, 3)),
            ("down_blocks.1.conv_shortcut", nn.Conv1d(4, 5, 1)),
            ("mid_block.conv_2d", nn.Conv2d(3, 4, (2, 3))),
            ("mid_block.conv_3d", nn.Conv3d(2, 3, (2, 1, 2))),
        ]
    )


def grouped() -> Chain:
    return Chain([("conv", nn.Conv1d(8, 6, 5, groups=2)), ("depthwise", nn.Conv1d(6, 6, 3, groups=6)), ("image.conv", nn.Conv2d(6, 9, 2, groups=3))])


# The model, settings of LoConModule, the prefix, and the type of the file.
CASES = {
    "plain": (plain, {}, PREFIX, torch.float32),
    "rslora": (plain, {"rs_lora": True, "alpha": 3}, PREFIX, torch.float32),
    "tucker": (plain, {"use_tucker": True}, PREFIX, torch.float32),
    "dora": (plain, {"weight_decompose": True}, PREFIX, torch.float32),
    "dora_tucker": (plain, {"weight_decompose": True, "use_tucker": True}, PREFIX, torch.float32),
    "kohya": (plain, {"alpha": 1}, "lora_unet", torch.float32),
    "half": (plain, {}, "lora_te1", torch.float16),
    "grouped": (grouped, {}, PREFIX, torch.float32),
    "grouped_dora": (grouped, {"weight_decompose": True}, PREFIX, torch.float32),
}


def adapters(base: Chain, prefix: str, settings: dict) -> dict[str, torch.Tensor]:
    """The state of a module on every layer, as if trained; ranks differ."""
    state = {}
    for number, path in enumerate(base.paths):
        name = f"{prefix}_{path}".replace(".", "_")
        module = LoConModule(name, base.get_submodule(path), lora_dim=2 + number % 3, **{"alpha": 2 + number % 2} | settings)
        with torch.no_grad():
            module.lora_up.weight.normal_()
            if module.wd:
                module.dora_scale.mul_(0.8 + 0.4 * torch.rand_like(module.dora_scale))
        state |= {f"{name}.{key}": tensor.detach().clone() for key, tensor in module.state_dict().items()}
    return state


def merged_by_lycoris(base: nn.Module, file: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights that LyCORIS makes of a base and a file."""
    model = copy.deepcopy(base)
    LycorisNetwork.LORA_PREFIX = prefix
    network, _ = create_lycoris_from_weights(1.0, str(file), model)
    network.merge_to(1.0)
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "lycoris")
    output = parser.parse_args().output
    warnings.filterwarnings("ignore")
    logger.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    shutil.rmtree(output, ignore_errors=True)
    for seed, (name, (model, settings, prefix, dtype)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        base, folder = model(), output / name
        folder.mkdir(parents=True)
        save_file(base.state_dict(), folder / "base.safetensors")
        state = {key: tensor.to(dtype).contiguous() for key, tensor in adapters(base, prefix, settings).items()}
        save_file(state, folder / "lycoris.safetensors")
        save_file(merged_by_lycoris(base, folder / "lycoris.safetensors", prefix), folder / "merged.safetensors")
        print(f"{name:12} {len(state)} tensors")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{len(CASES)} cases, {size:,} bytes")


if __name__ == "__main__":
    main()
