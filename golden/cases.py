"""The golden cases: one function a case, whose docstring is the case's description."""

from dataclasses import dataclass, field
from typing import Callable

import torch
from torch import nn

from chain import Layers, gpt2_linear


@dataclass
class Case:
    layers: Layers
    # Shape of the input.
    input: tuple[int, ...]
    config: dict
    # For a model that begins with an embedding: the input is token numbers below this.
    tokens: int | None = None
    dtype: torch.dtype = torch.float32
    # Names to save the adapter under; the first is the one whose output is recorded.
    adapters: list[str] = field(default_factory=lambda: ["default"])
    # Make A block-sparse, so that a grouped convolution has a merged weight.
    own_group_only: bool = False
    # Let PEFT keep the adapter in float32 whatever the base is, as it does by default.
    float32_adapter: bool = True


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def lora(targets, r: int, alpha: int, **more) -> dict:
    return {"target_modules": targets, "r": r, "lora_alpha": alpha, "init_lora_weights": False} | more


# Linear layers and embeddings


@case
def linear():
    """A linear layer on a batch of sequences."""
    return Case([("fc", nn.Linear(12, 10))], (2, 3, 12), lora(["fc"], 4, 8))


@case
def linear_rslora():
    """rsLoRA: scaling is alpha / sqrt(r), here not a round number."""
    return Case([("fc", nn.Linear(12, 10, bias=False))], (4, 12), lora(["fc"], 5, 3, use_rslora=True))


@case
def linear_lora_bias():
    """A bias on B, scaled like the rest."""
    return Case([("fc", nn.Linear(8, 6))], (4, 8), lora(["fc"], 3, 6, lora_bias=True))


@case
def hf_conv1d():
    """transformers' Conv1D, weight (in, out), one of them square: only fan_in_fan_out tells which way it lies."""
    layers = [("attn.c_attn", gpt2_linear(8, 12)), ("attn.c_proj", gpt2_linear(12, 12))]
    return Case(layers, (2, 3, 8), lora(["c_attn", "c_proj"], 3, 6, fan_in_fan_out=True))


@case
def hf_conv1d_and_linear():
    """Both kinds of linear layer in one model, as GPT-2 with a score head: PEFT writes the fan_in_fan_out of the last one it met, and reads by class."""
    layers = [("c_attn", gpt2_linear(8, 12)), ("score", nn.Linear(12, 3))]
    return Case(layers, (2, 8), lora(["c_attn", "score"], 3, 6))


@case
def embedding():
    """An embedding: A (r, tokens), B (dim, r), keys without `.weight`."""
    return Case([("emb", nn.Embedding(20, 6))], (2, 7), lora(["emb"], 4, 4), tokens=20)


@case
def embedding_saved():
    """An embedding named `embed_tokens` and adapted: PEFT writes its whole base weight into the adapter file too."""
    return Case([("embed_tokens", nn.Embedding(10, 6))], (2, 5), lora(["embed_tokens"], 2, 4), tokens=10)


# Conv1d


@case
def conv1d_k1():
    """Kernel 1: a linear layer in a convolution's shape."""
    return Case([("conv", nn.Conv1d(6, 8, 1))], (2, 6, 9), lora(["conv"], 4, 8))


@case
def conv1d_k3():
    """Kernel 3, padding 1."""
    return Case([("conv", nn.Conv1d(6, 8, 3, padding=1))], (2, 6, 9), lora(["conv"], 4, 8))


@case
def conv1d_stride():
    """Stride 2, as Whisper's second convolution, on an odd length."""
    return Case([("conv", nn.Conv1d(6, 6, 3, stride=2, padding=1))], (2, 6, 11), lora(["conv"], 2, 4))


@case
def conv1d_long_kernel():
    """Kernel 10, stride 5, no padding, no bias, as wav2vec2's first convolution."""
    return Case([("conv", nn.Conv1d(1, 8, 10, stride=5, bias=False))], (2, 1, 47), lora(["conv"], 4, 2))


@case
def conv1d_same():
    """padding="same" with an even kernel: the odd zero goes to the right."""
    return Case([("conv", nn.Conv1d(4, 6, 4, padding="same"))], (2, 4, 9), lora(["conv"], 3, 3))


@case
def conv1d_valid():
    """padding="valid", kernel 5."""
    return Case([("conv", nn.Conv1d(4, 6, 5, padding="valid"))], (2, 4, 9), lora(["conv"], 3, 3))


@case
def conv1d_rank_above_channels():
    """A rank larger than either number of channels."""
    return Case([("conv", nn.Conv1d(2, 3, 5, padding=2))], (2, 2, 8), lora(["conv"], 9, 9))


@case
def conv1d_groups_dense():
    """Two groups, A reaching into both: PEFT's forward has no merged weight of the grouped shape."""
    return Case([("conv", nn.Conv1d(8, 6, 3, padding=1, groups=2))], (2, 8, 9), lora(["conv"], 4, 8))


@case
def conv1d_groups_block():
    """Two groups, A zero outside its own group: the update fits the grouped weight."""
    return Case([("conv", nn.Conv1d(8, 6, 3, padding=1, groups=2))], (2, 8, 9), lora(["conv"], 4, 8), own_group_only=True)


@case
def conv1d_depthwise_dense():
    """Depthwise, r = channels (the least PEFT accepts), A dense over all channels."""
    return Case([("conv", nn.Conv1d(6, 6, 3, padding=1, groups=6))], (2, 6, 9), lora(["conv"], 6, 6))


@case
def conv1d_depthwise_block():
    """Depthwise, r = channels, A diagonal."""
    return Case([("conv", nn.Conv1d(6, 6, 3, padding=1, groups=6))], (2, 6, 9), lora(["conv"], 6, 6), own_group_only=True)


@case
def conv1d_depthwise_multiplier():
    """Depthwise with two outputs a channel, r = 2 x channels, stride 2, A block-sparse."""
    layer = nn.Conv1d(4, 8, 5, stride=2, padding=2, groups=4)
    return Case([("conv", layer)], (2, 4, 9), lora(["conv"], 8, 4), own_group_only=True)


@case
def conv1d_lora_bias():
    """A bias on B of a convolution."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 3, 6, lora_bias=True))


@case
def conv1d_dilated():
    """Dilation 2: PEFT forgets it in A and cannot run; what it merges is right."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=2, dilation=2))], (2, 4, 12), lora(["conv"], 3, 6))


@case
def conv1d_dilated_same():
    """Dilation 3 with padding="same": PEFT runs, and its unmerged output is another function than its merged weight."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding="same", dilation=3))], (2, 4, 12), lora(["conv"], 3, 6))


@case
def conv1d_reflect():
    """Reflect padding: PEFT pads A's input with zeros, so unmerged and merged differ at the borders."""
    layer = nn.Conv1d(4, 6, 5, padding=2, padding_mode="reflect")
    return Case([("conv", layer)], (2, 4, 9), lora(["conv"], 3, 6))


@case
def conv1d_circular():
    """Circular padding: as with reflect, unmerged and merged differ at the borders."""
    layer = nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular")
    return Case([("conv", layer)], (2, 4, 9), lora(["conv"], 3, 6))


@case
def conv1d_rslora_alphas_bias_all():
    """rsLoRA, an alpha pattern and bias="all" together, on a strided convolution and a linear layer."""
    layers = [("conv", nn.Conv1d(4, 6, 3, stride=2, padding=1)), ("head", nn.Linear(5, 3))]
    return Case(layers, (2, 4, 9), lora(["conv", "head"], 5, 8, use_rslora=True, alpha_pattern={"conv": 3}, bias="all"))


# Conv2d and Conv3d


@case
def conv2d_3x3():
    """Kernel 3 x 3, padding 1."""
    return Case([("conv", nn.Conv2d(3, 5, 3, padding=1))], (1, 3, 5, 6), lora(["conv"], 4, 8))


@case
def conv2d_1x1():
    """Kernel 1 x 1, for which PEFT has a path of its own."""
    return Case([("conv", nn.Conv2d(4, 6, 1))], (1, 4, 4, 5), lora(["conv"], 3, 3))


@case
def conv2d_uneven():
    """Kernel, stride and padding that differ by axis."""
    layer = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0))
    return Case([("conv", layer)], (1, 3, 7, 5), lora(["conv"], 2, 4))


@case
def conv2d_groups_block():
    """Two groups in two dimensions, A block-sparse."""
    layer = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    return Case([("conv", layer)], (1, 4, 5, 4), lora(["conv"], 4, 8), own_group_only=True)


@case
def conv2d_lora_bias():
    """A bias on B of a two-dimensional convolution."""
    return Case([("conv", nn.Conv2d(3, 4, 3))], (1, 3, 5, 5), lora(["conv"], 2, 4, lora_bias=True))


@case
def conv3d():
    """A three-dimensional convolution, uneven in every axis."""
    layer = nn.Conv3d(2, 3, (2, 1, 3), stride=(1, 2, 1), padding=(0, 0, 1))
    return Case([("conv", layer)], (1, 2, 4, 3, 4), lora(["conv"], 3, 6))


@case
def conv2d_rank_pattern():
    """Two two-dimensional convolutions of different ranks, one of them 1 x 1 and without a bias."""
    layers = [("stem.conv", nn.Conv2d(3, 4, 3, padding=1)), ("point", nn.Conv2d(4, 5, 1, bias=False))]
    return Case(layers, (1, 3, 4, 5), lora(["conv", "point"], 2, 4, rank_pattern={"point": 3}))


@case
def conv2d_dilated():
    """Dilation (2, 1): PEFT cannot run it; what it merges is right."""
    return Case([("conv", nn.Conv2d(3, 4, (3, 2), dilation=(2, 1)))], (1, 3, 7, 5), lora(["conv"], 2, 4))


@case
def conv3d_groups_block():
    """Two groups in three dimensions, A block-sparse."""
    layer = nn.Conv3d(4, 6, (2, 1, 2), groups=2)
    return Case([("conv", layer)], (1, 4, 3, 2, 3), lora(["conv"], 4, 8), own_group_only=True)


# DoRA


@case
def dora_linear():
    """DoRA: magnitude (out,)."""
    return Case([("fc", nn.Linear(8, 6))], (4, 8), lora(["fc"], 3, 6, use_dora=True))


@case
def dora_hf_conv1d():
    """DoRA on transformers' Conv1D: the norm is over the inputs, which are the rows here."""
    return Case([("c_fc", gpt2_linear(6, 6))], (4, 6), lora(["c_fc"], 2, 4, use_dora=True, fan_in_fan_out=True))


@case
def dora_embedding():
    """DoRA on an embedding: magnitude (dim,)."""
    return Case([("emb", nn.Embedding(12, 6))], (2, 5), lora(["emb"], 3, 6, use_dora=True), tokens=12)


@case
def dora_conv1d():
    """DoRA on a convolution: magnitude (1, out, 1)."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 3, 6, use_dora=True))


@case
def dora_conv2d():
    """DoRA on a two-dimensional convolution: magnitude (1, out, 1, 1)."""
    return Case([("conv", nn.Conv2d(3, 4, 3))], (1, 3, 5, 5), lora(["conv"], 2, 4, use_dora=True))


@case
def dora_conv3d():
    """DoRA on a three-dimensional convolution: magnitude (1, out, 1, 1, 1)."""
    return Case([("conv", nn.Conv3d(2, 3, (2, 1, 3)))], (1, 2, 4, 3, 4), lora(["conv"], 2, 4, use_dora=True))


@case
def dora_conv1d_groups_block():
    """DoRA on two groups: PEFT's norm meets the rows of B with the A of the other group, every second time here."""
    layer = nn.Conv1d(8, 6, 3, padding=1, groups=2)
    return Case([("conv", layer)], (2, 8, 9), lora(["conv"], 4, 8, use_dora=True), own_group_only=True)


@case
def dora_chain():
    """DoRA with rsLoRA and a rank pattern on two layers, one of them strided."""
    layers = [("conv", nn.Conv1d(4, 6, 3, stride=2, padding=1)), ("head", nn.Linear(5, 3))]
    config = lora(["conv", "head"], 4, 4, use_dora=True, use_rslora=True, rank_pattern={"head": 2})
    return Case(layers, (2, 4, 9), config)


@case
def dora_hf_conv1d_rslora():
    """DoRA with rsLoRA on two of transformers' Conv1D, wide and square."""
    layers = [("attn.c_attn", gpt2_linear(8, 12)), ("attn.c_proj", gpt2_linear(12, 12))]
    config = lora(["c_attn", "c_proj"], 3, 4, use_dora=True, use_rslora=True, fan_in_fan_out=True)
    return Case(layers, (2, 3, 8), config)


@case
def dora_bf16():
    """DoRA on a bfloat16 convolution, adapter in float32."""
    layer = nn.Conv1d(4, 6, 3, padding=1)
    return Case([("conv", layer)], (2, 4, 9), lora(["conv"], 3, 6, use_dora=True), dtype=torch.bfloat16)


@case
def dora_bias_lora_only():
    """DoRA beside trained biases: the bias is outside of what is divided by the norm."""
    layers = [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("head", nn.Linear(9, 3))]
    return Case(layers, (2, 4, 9), lora(["conv", "head"], 3, 6, use_dora=True, bias="lora_only"))


# Which modules, at which rank


def convolutions_then_heads() -> Layers:
    """Two convolutions over 8 channels, then two linear layers over the 10 samples."""
    return [
        ("encoder.conv1", nn.Conv1d(8, 8, 3, padding=1)),
        ("encoder.conv2", nn.Conv1d(8, 8, 3, padding=1)),
        ("decoder.proj", nn.Linear(10, 6)),
        ("head", nn.Linear(6, 4)),
    ]


@case
def patterns():
    """rank_pattern and alpha_pattern: by last component, by anchored path, by regular expression, and a layer that keeps the default."""
    ranks = {"conv1": 2, "^head": 3, r"decoder\..*": 5}
    alphas = {r"conv\d": 12, "head": 1}
    config = lora(["conv1", "conv2", "proj", "head"], 4, 8, rank_pattern=ranks, alpha_pattern=alphas)
    return Case(convolutions_then_heads(), (2, 8, 10), config)


@case
def patterns_rslora():
    """Patterns with rsLoRA: the square root is of each layer's own rank."""
    config = lora(["conv1", "conv2"], 4, 8, rank_pattern={"conv1": 2}, alpha_pattern={"conv2": 3}, use_rslora=True)
    return Case(convolutions_then_heads(), (2, 8, 10), config)


@case
def regex_targets():
    """target_modules as one regular expression with a look-ahead: full match, all but `conv2`."""
    return Case(convolutions_then_heads(), (2, 8, 10), lora(r"(encoder\.(?!conv2)|decoder\.).*", 2, 4))


@case
def exclude_modules():
    """exclude_modules takes a target back."""
    config = lora(["conv1", "conv2", "head"], 2, 4, exclude_modules=["encoder.conv2"])
    return Case(convolutions_then_heads(), (2, 8, 10), config)


@case
def all_linear():
    """target_modules="all-linear": convolutions are not among them, and the file lists what was found."""
    return Case(convolutions_then_heads(), (2, 8, 10), lora("all-linear", 2, 4))


@case
def layers_to_transform():
    """Only layers 0 and 2 of three, counted below `blocks`."""
    layers = [(f"model.blocks.{i}.conv", nn.Conv1d(4, 4, 3, padding=1)) for i in range(3)]
    config = lora(["conv"], 2, 4, layers_to_transform=[0, 2], layers_pattern="blocks")
    return Case(layers, (2, 4, 8), config)


# What else an adapter file may carry


def normed() -> Layers:
    norm = nn.BatchNorm1d(6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    norm.num_batches_tracked.fill_(7)
    return [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("norm", norm), ("head", nn.Linear(8, 3))]


@case
def bias_all():
    """bias="all": every bias of the model, the norm's too, is trained and saved."""
    layers = [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("norm", nn.GroupNorm(2, 6)), ("head", nn.Linear(8, 3))]
    return Case(layers, (2, 4, 8), lora(["conv"], 2, 4, bias="all"))


@case
def bias_lora_only():
    """bias="lora_only": the biases of adapted layers alone."""
    return Case(convolutions_then_heads(), (2, 8, 10), lora(["conv2", "head"], 2, 4, bias="lora_only"))


@case
def modules_to_save():
    """A linear head and a batch norm trained whole: parameters and buffers, a 64-bit counter among them."""
    return Case(normed(), (2, 4, 8), lora(["conv"], 2, 4, modules_to_save=["head", "norm"]))


def tokens() -> Layers:
    return [("embed_tokens", nn.Embedding(10, 6)), ("fc", nn.Linear(6, 4))]


@case
def tokens_list():
    """trainable_token_indices as a list: three rows of the token embedding, not in order, beside LoRA on a linear layer."""
    return Case(tokens(), (2, 5), lora(["fc"], 2, 4, trainable_token_indices=[7, 0, 3]), tokens=10)


@case
def tokens_by_name():
    """trainable_token_indices by the name of an embedding."""
    layers = [("emb", nn.Embedding(12, 6)), ("head", nn.Linear(6, 3))]
    return Case(layers, (2, 6), lora(["head"], 3, 3, trainable_token_indices={"emb": [1, 11]}), tokens=12)


@case
def tokens_bf16():
    """Trained rows of an embedding in bfloat16, kept in float32 as PEFT does."""
    return Case(tokens(), (2, 5), lora(["fc"], 2, 4, trainable_token_indices=[2, 9]), tokens=10, dtype=torch.bfloat16)


@case
def gaussian():
    """init_lora_weights="gaussian", with B as if trained."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 4, 8, init_lora_weights="gaussian"))


@case
def dropout():
    """lora_dropout in the configuration; outputs are those of evaluation, where it does nothing."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 2, 4, lora_dropout=0.25))


@case
def task_type():
    """A task_type, which leaves auto_mapping empty."""
    return Case([("fc", nn.Linear(8, 6))], (4, 8), lora(["fc"], 2, 4, task_type="FEATURE_EXTRACTION"))


# Precision


@case
def linear_f16():
    """Half precision base, adapter in float32: PEFT's default."""
    return Case([("fc", nn.Linear(8, 6))], (4, 8), lora(["fc"], 4, 8), dtype=torch.float16)


@case
def conv1d_f16():
    """Half precision convolution, adapter in float32."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 4, 8), dtype=torch.float16)


@case
def conv1d_bf16():
    """bfloat16 convolution, adapter in float32."""
    return Case([("conv", nn.Conv1d(4, 6, 3, padding=1))], (2, 4, 9), lora(["conv"], 4, 8), dtype=torch.bfloat16)


@case
def embedding_bf16():
    """bfloat16 embedding, adapter in float32: here PEFT rounds the delta to bfloat16 before it adds it."""
    return Case([("emb", nn.Embedding(12, 6))], (2, 5), lora(["emb"], 3, 6), tokens=12, dtype=torch.bfloat16)


@case
def conv1d_bf16_adapter():
    """bfloat16 base and adapter: PEFT rounds the delta to bfloat16 before it adds it."""
    layer = nn.Conv1d(4, 6, 3, padding=1)
    return Case([("conv", layer)], (2, 4, 9), lora(["conv"], 4, 8), dtype=torch.bfloat16, float32_adapter=False)


@case
def linear_bf16_file():
    """bfloat16 base and adapter of linear layers: the adapter file holds bfloat16."""
    layers = [("fc", nn.Linear(8, 6)), ("out", nn.Linear(6, 5, bias=False))]
    return Case(layers, (4, 8), lora(["fc", "out"], 3, 6), dtype=torch.bfloat16, float32_adapter=False)


# Names


@case
def named_adapter():
    """An adapter called `voice`: saved in a folder of that name, which its keys do not show."""
    layers = [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("head", nn.Linear(9, 3))]
    return Case(layers, (2, 4, 9), lora(["conv", "head"], 2, 4), adapters=["voice"])


@case
def two_adapters():
    """`default` in the directory itself and `voice` in its folder, both saved, `default` active."""
    layers = [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("head", nn.Linear(9, 3))]
    return Case(layers, (2, 4, 9), lora(["conv", "head"], 2, 4), adapters=["default", "voice"])


@case
def bias_all_saved_whole():
    """bias="all" with modules_to_save: PEFT writes the bias of a module saved whole three times."""
    layers = [("conv", nn.Conv1d(4, 6, 3, padding=1)), ("head", nn.Linear(8, 3))]
    return Case(layers, (2, 4, 8), lora(["conv"], 2, 4, bias="all", modules_to_save=["head"]))
