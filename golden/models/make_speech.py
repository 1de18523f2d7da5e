"""Make the cases of this folder: tiny random checkpoints of transformers, with their outputs and the gradients of adapters on them.

    python -m pip install -r ../requirements.txt
    python make_speech.py                # into this folder
    python make_speech.py --output DIR   # elsewhere, to compare

Seeds are fixed: on one machine a second run gives the same bytes. The weights are stored in half precision, to be small, and computed with in single.
"""

import argparse
import json
import shutil
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "O", "N", "'"]
SPEECH = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 2),
    conv_stride=(5, 2, 2), vocab_size=len(VOCABULARY), classifier_proj_size=12, num_labels=3,
)
# Kernel and groups of the positional convolution in the published models.
FULL_POSITIONS = dict(num_conv_pos_embeddings=128, num_conv_pos_embedding_groups=16)
STABLE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
SPEECH_TARGETS = ["conv_layers.0.conv", "conv_layers.1.conv", "pos_conv_embed.conv", "q_proj", "v_proj"]
HIFIGAN = dict(
    model_in_dim=6, upsample_initial_channel=16, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 2)),
)


@dataclass
class Case:
    model: type
    config: transformers.PreTrainedConfig
    targets: list[str]
    inputs: list[torch.Tensor]
    group_mode: str = "per_group"
    rank: int = 4
    rank_pattern: dict[str, int] = field(default_factory=dict)
    old_weight_norm: bool = False


def waves() -> list[torch.Tensor]:
    return [torch.randn(2, 700), torch.randn(1, 1501)]


def speech(kind: str, head: str, **settings) -> Case:
    model, config = getattr(transformers, f"{kind}For{head}"), getattr(transformers, f"{kind}Config")(**SPEECH | settings.pop("config"))
    return Case(model, config, SPEECH_TARGETS, waves(), **settings)


def spectrograms() -> list[torch.Tensor]:
    return [torch.randn(2, 9, 6), torch.randn(1, 14, 6)]


def hifigan(**config) -> Case:
    targets = ["conv_pre", "convs1.0", "convs1.1", "convs2.0", "upsampler.0", "upsampler.1"]
    return Case(transformers.SpeechT5HifiGan, transformers.SpeechT5HifiGanConfig(**HIFIGAN | config), targets, spectrograms(), rank=2)


CASES = {
    "wav2vec2_ctc_group": lambda: speech("Wav2Vec2", "CTC", config=FULL_POSITIONS, rank_pattern={"pos_conv_embed.conv": 16}),
    "wav2vec2_ctc_layer": lambda: speech(
        "Wav2Vec2", "CTC", config=STABLE | dict(num_conv_pos_embeddings=15, num_conv_pos_embedding_groups=4), group_mode="shared"
    ),
    "wav2vec2_sequence_group": lambda: speech(
        "Wav2Vec2", "SequenceClassification", config=dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, mask_time_prob=0.0),
        old_weight_norm=True,
    ),
    "wav2vec2_sequence_layer": lambda: speech(
        "Wav2Vec2", "SequenceClassification", config=STABLE | FULL_POSITIONS | dict(use_weighted_layer_sum=True), group_mode="shared"
    ),
    "hubert_ctc_layer": lambda: speech(
        "Hubert", "CTC", config=STABLE | dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_proj_layer_norm=False)
    ),
    "hubert_sequence_group": lambda: speech(
        "Hubert", "SequenceClassification",
        config=dict(num_conv_pos_embeddings=15, num_conv_pos_embedding_groups=4, use_weighted_layer_sum=True, hidden_act="gelu_new"),
        group_mode="shared",
    ),
    "hifigan": lambda: hifigan(),
    "hifigan_weight_norm": lambda: hifigan(normalize_before=False),
    "gpt2": lambda: Case(
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(vocab_size=24, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0),
        ["c_attn", "c_proj", "c_fc"], [torch.randint(24, (2, 16)), torch.randint(24, (1, 5))],
    ),
}


def randomise(model: nn.Module):
    """No parameter is left at its starting value; all can be told apart in half precision."""
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if name.endswith("scale") or "norm" in name and name.endswith("weight") or name.endswith("original0"):
            tensor.data.mul_(1 + 0.3 * torch.rand_like(tensor))
        elif tensor.is_floating_point():
            tensor.data.add_(0.1 * torch.randn_like(tensor))
        if "lm_head.weight" in name or name == "layer_weights":
            tensor.data.mul_(4)
        tensor.data = tensor.data.half().float()


def save(model: nn.Module, folder: Path, old_weight_norm: bool):
    """As `save_pretrained`, in half precision; with the names that checkpoints had before PyTorch 2.0 if asked for."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        (folder / "config.json").write_bytes((Path(scratch) / "config.json").read_bytes())
        tensors = load_file(Path(scratch) / "model.safetensors")
    if old_weight_norm:
        renamed = lambda name: name.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")
        tensors = {renamed(name): tensor for name, tensor in tensors.items()}
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def factors(layer: nn.Module, rank: int, mode: str) -> tuple[torch.Tensor, torch.Tensor, callable]:
    """A and B in the shapes that PEFT has for them (compact ones for groups), and the delta that they make, without the scale."""
    weight = layer.weight
    if isinstance(layer, (nn.Linear, Conv1D)):
        out, inputs = weight.shape if isinstance(layer, nn.Linear) else weight.shape[::-1]
        delta = (lambda a, b: b @ a) if isinstance(layer, nn.Linear) else (lambda a, b: (b @ a).T)
        return torch.randn(rank, inputs), torch.randn(out, rank), delta
    if isinstance(layer, nn.ConvTranspose1d):
        # The weight is (in, out, k), and PEFT has no adapter for it: the factors are those of a convolution.
        inputs, out, kernel = weight.shape
        delta = lambda a, b: torch.einsum("pik,op->iok", a, b.squeeze(-1))
        return torch.randn(rank, inputs, kernel), torch.randn(out, rank, 1), delta
    out, inputs, kernel = weight.shape
    groups = layer.groups
    if mode == "per_group" and groups > 1:
        delta = lambda a, b: torch.einsum(
            "gop,gpik->goik", b.view(groups, out // groups, -1), a.view(groups, rank // groups, inputs, kernel)
        ).reshape(weight.shape)
        return torch.randn(rank, inputs, kernel), torch.randn(out, rank // groups, 1), delta
    return torch.randn(rank, inputs, kernel), torch.randn(out, rank, 1), lambda a, b: (b.flatten(1) @ a.flatten(1)).view(weight.shape)


def plain(model: nn.Module):
    """Folds weight normalisation, so that every weight is a parameter."""
    for module in model.modules():
        if hasattr(module, "parametrizations"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")


def output(model: nn.Module, case: Case, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    result = torch.func.functional_call(model, weights, (x,), tie_weights=True)
    return result if isinstance(result, torch.Tensor) else result.logits


def make(name: str, folder: Path):
    torch.manual_seed(zlib.crc32(name.encode()))
    case = CASES[name]()
    folder.mkdir(parents=True)
    model = case.model(case.config)
    if "weight_norm" in name:
        model.apply_weight_norm()
    model.eval()
    randomise(model)
    save(model, folder, case.old_weight_norm)
    tensors = {}
    with torch.no_grad():
        for number, x in enumerate(case.inputs):
            tensors |= {f"x.{number}": x, f"y.{number}": output(model, case, x, {})}
    record = {"inputs": len(case.inputs), "group_mode": case.group_mode, "r": case.rank, "lora_alpha": 2 * case.rank, "target_modules": case.targets}
    record |= {"rank_pattern": case.rank_pattern, "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}}
    if "ctc" in name:
        record["decoded"] = decode(case, folder, tensors)

    plain(model)
    adapted, weights = {}, {}
    for path, layer in model.named_modules():
        if any(path == target or path.endswith("." + target) for target in case.targets):
            rank = next((rank for end, rank in case.rank_pattern.items() if path.endswith(end)), case.rank)
            a, b, delta = factors(layer, rank, case.group_mode)
            a, b = (0.2 * a).requires_grad_(), (0.2 * b).requires_grad_()
            adapted[path] = (a, b)
            weights[f"{path}.weight"] = layer.weight.detach() + 2 * case.rank / rank * delta(a, b)
    y = output(model, case, case.inputs[0], weights)
    cotangent = torch.randn_like(y)
    (y * cotangent).sum().backward()
    tensors |= {"adapted.0": y.detach(), "dy.0": cotangent}
    for path, (a, b) in adapted.items():
        tensors |= {f"{path}.lora_A.weight": a.detach(), f"{path}.lora_B.weight": b.detach()}
        tensors |= {f"grad.{path}.lora_A.weight": a.grad, f"grad.{path}.lora_B.weight": b.grad}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "io.safetensors")
    (folder / "case.json").write_text(json.dumps(record, indent=2) + "\n")


def decode(case: Case, folder: Path, tensors: dict) -> list[dict]:
    """What transformers' tokenizer makes of the likeliest output of every frame."""
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(VOCABULARY)}) + "\n")
    tokenizer = transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json")
    decoded = []
    for number in range(len(case.inputs)):
        for ids in tensors[f"y.{number}"].argmax(-1):
            result = tokenizer.decode(ids, output_word_offsets=True)
            words = [[word["word"], word["start_offset"], word["end_offset"]] for word in result.word_offsets]
            decoded.append({"input": number, "text": result.text, "words": json.loads(json.dumps(words, default=int))})
    return decoded


def make_ctc_loss(folder: Path):
    """`torch.nn.functional.ctc_loss` of single utterances: with repetitions, with no more frames than needed, with too few, and without a text."""
    torch.manual_seed(5)
    folder.mkdir()
    tensors = {}
    for name, frames, labels in [("plain", 12, [1, 2, 2, 3]), ("tight", 5, [4, 4, 1, 4]), ("few", 4, [4, 4, 1, 4]), ("silent", 6, []), ("long", 90, [1, 2, 3, 4] * 8)]:
        logits = (2 * torch.randn(1, frames, 5)).requires_grad_()
        log_probs = logits.log_softmax(-1).transpose(0, 1)
        loss = nn.functional.ctc_loss(
            log_probs, torch.tensor([labels], dtype=torch.long), torch.tensor([frames]), torch.tensor([len(labels)]), blank=0, reduction="sum",
            zero_infinity=name == "few",
        )
        loss.backward()
        tensors |= {f"{name}.logits": logits.detach(), f"{name}.loss": loss.detach().view(1), f"{name}.grad": logits.grad}
        tensors[f"{name}.labels"] = torch.tensor(labels, dtype=torch.float32)
    save_file(tensors, folder / "io.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    output = parser.parse_args().output
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in CASES:
        shutil.rmtree(output / name, ignore_errors=True)
        make(name, output / name)
        print(f"{name:26} {sum(path.stat().st_size for path in (output / name).iterdir()):8,} bytes")
    shutil.rmtree(output / "ctc_loss", ignore_errors=True)
    make_ctc_loss(output / "ctc_loss")


if __name__ == "__main__":
    main()
