"""Models of transformers with adapters: what PEFT makes of an adapter of ours, and lowrank of one of PEFT's, is the same output.

Random weights, tiny sizes. `model_outputs` is the example of that name of `lowrank-burn`, which runs a network that has no task in the command.
"""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from lowrank import Lowrank
from tally import Tally

# Of the largest output.
CLOSE = 1e-4


@dataclass
class Case:
    name: str
    model: type
    config: transformers.PreTrainedConfig
    x: callable
    targets: list[str]
    r: int = 4
    rank_pattern: dict[str, int] = field(default_factory=dict)
    # Keys of lowrank's own in the config.json of a base.
    keys: dict = field(default_factory=dict)


def speech(kind: str, head: str, **config) -> Case:
    settings = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2), num_conv_pos_embeddings=128, num_conv_pos_embedding_groups=16, vocab_size=12, num_labels=3,
    )
    model, config = getattr(transformers, f"{kind}For{head}"), getattr(transformers, f"{kind}Config")(**settings | config)
    targets = ["conv_layers.0.conv", "conv_layers.1.conv", "conv_layers.2.conv", "pos_conv_embed.conv", "q_proj", "v_proj"]
    signal = {"signal": {"channels": 1, "sample_rate": 16000, "window": 800, "hop": 800}}
    return Case(
        f"{kind} for {head}", model, config, lambda: torch.randn(2, 800), targets, rank_pattern={"pos_conv_embed.conv": 16},
        keys=signal if head == "SequenceClassification" else {},
    )


def cases() -> list[Case]:
    stable = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, use_weighted_layer_sum=True)
    hifigan = transformers.SpeechT5HifiGanConfig(
        model_in_dim=6, upsample_initial_channel=32, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (1, 2)),
    )
    gpt2 = transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    return [
        speech("Wav2Vec2", "CTC"),
        speech("Wav2Vec2", "SequenceClassification", **stable),
        speech("Hubert", "CTC", **stable),
        speech("Hubert", "SequenceClassification"),
        # PEFT's bypass of a dilated convolution has another length than its base, so these stay without.
        Case("HiFi-GAN", transformers.SpeechT5HifiGan, hifigan, lambda: torch.randn(2, 11, 6), ["conv_pre", "convs1.0", "convs2.0", "convs2.1"]),
        Case("GPT-2", transformers.GPT2LMHeadModel, gpt2, lambda: torch.randint(40, (2, 20)), ["c_attn", "c_proj", "c_fc"]),
    ]


def make_base(case: Case, folder: Path):
    model = case.model(case.config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | case.keys))
    if case.name.endswith("CTC"):
        (folder / "vocab.json").write_text(json.dumps({chr(97 + number): number for number in range(case.config.vocab_size)}))


def load_base(case: Case, folder: Path):
    return case.model.from_pretrained(folder).eval()


def outputs(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result = model(x)
    return result if isinstance(result, torch.Tensor) else result.logits


def assert_close(found: torch.Tensor, expected: torch.Tensor):
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    gap = (found - expected).abs().max().item()
    assert gap <= CLOSE * max(1.0, expected.abs().max().item()), f"off by {gap:.3g}"


def check(tally: Tally, binary: Lowrank, scratch: Path):
    program = binary.binary.parent / "examples/model_outputs"

    def ours(base: Path, x: Path, *adapter: object) -> torch.Tensor:
        done = subprocess.run([program, base, x, scratch / "y.safetensors", *map(str, adapter)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr.strip()
        return load_file(scratch / "y.safetensors")["y"]

    for number, case in enumerate(cases()):
        torch.manual_seed(number)
        folder = scratch / f"model-{number}"
        base, x_file = folder / "base", folder / "x.safetensors"
        make_base(case, base)
        x = case.x()
        save_file({"x": x}, x_file)
        with tally.check(f"{case.name}: the base says what transformers' says"):
            assert_close(ours(base, x_file), outputs(load_base(case, base), x))
        settings = dict(r=case.r, lora_alpha=2 * case.r, target_modules=case.targets, rank_pattern=case.rank_pattern, init_lora_weights=False)
        with tally.check(f"{case.name}: an adapter of lowrank's in PEFT"):
            (folder / "adapter.json").write_text(json.dumps({"peft_type": "LORA"} | settings))
            found = ours(base, x_file, "--new", folder / "adapter.json", folder / "ours")
            plain = load_base(case, base)
            before = outputs(plain, x)
            expected = outputs(peft.PeftModel.from_pretrained(plain, folder / "ours").get_base_model(), x)
            assert (expected - before).abs().max() > 1e-3, "the adapter changes nothing: a test of nothing"
            assert_close(found, expected)
        with tally.check(f"{case.name}: an adapter of PEFT's in lowrank"):
            # In PEFT's dense form a grouped convolution's A reaches outside of its group.
            model = peft.get_peft_model(load_base(case, base), peft.LoraConfig(**settings)).eval()
            model.save_pretrained(folder / "theirs")
            assert_close(ours(base, x_file, "--load", folder / "theirs"), outputs(model.get_base_model(), x))
