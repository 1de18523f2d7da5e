"""Converts a Whisper from CTranslate2's files to those of transformers: config.json, generation_config.json, model.safetensors, tokenizer.json.

    python3 convert.py CTRANSLATE2_DIR OUTPUT_DIR

Needs nothing but Python. The numbers are copied as they are, in half precision; only their names change, and the fused projections are cut apart.
"""

import json
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# CTranslate2's numbers for its types, and what safetensors calls those that weights may have here.
FLOAT32, FLOAT16 = 0, 4
NAMES = {FLOAT32: "F32", FLOAT16: "F16"}
SIZES = {FLOAT32: 4, FLOAT16: 2}
# Tokens that tell where a text begins and ends.
START, END, NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"


@dataclass
class Tensor:
    shape: list[int]
    dtype: int
    data: bytes

    def rows(self, first: int, last: int) -> "Tensor":
        """From row `first` up to `last`."""
        row = len(self.data) // self.shape[0]
        return Tensor([last - first, *self.shape[1:]], self.dtype, self.data[first * row : last * row])

    def parts(self, count: int) -> list["Tensor"]:
        length = self.shape[0] // count
        return [self.rows(at * length, (at + 1) * length) for at in range(count)]


def read(file: BinaryIO) -> dict[str, Tensor]:
    """The variables of a model.bin of version 6, and of aliases what they stand for."""

    def number(form: str) -> int:
        return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0]

    def word() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    version, kind = number("I"), word()
    if (version, kind) != (6, "WhisperSpec"):
        raise SystemExit(f"not a Whisper of version 6: found {kind}, version {version}")
    number("I")
    tensors = {}
    for _ in range(number("I")):
        name = word()
        shape = [number("I") for _ in range(number("B"))]
        dtype = number("B")
        tensors[name] = Tensor(shape, dtype, file.read(number("I")))
    for _ in range(number("I")):
        alias, name = word(), word()
        tensors[alias] = tensors[name]
    return tensors


def scalar(tensor: Tensor) -> int:
    return int.from_bytes(tensor.data, "little")


def both(source: str, target: str) -> dict[str, str]:
    return {f"{source}/weight": f"{target}.weight", f"{source}/bias": f"{target}.bias"}


def norm(source: str, target: str) -> dict[str, str]:
    return {f"{source}/gamma": f"{target}.weight", f"{source}/beta": f"{target}.bias"}


def renamed(layers: dict[str, int]) -> dict[str, str]:
    """Names of what is only called otherwise."""
    names = {
        **both("encoder/conv1", "model.encoder.conv1"),
        **both("encoder/conv2", "model.encoder.conv2"),
        "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
        "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
        "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
    }
    for side, count in layers.items():
        names |= norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for at in range(count):
            source, target = f"{side}/layer_{at}", f"model.{side}.layers.{at}"
            names |= norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
            names |= norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            names |= both(f"{source}/ffn/linear_0", f"{target}.fc1") | both(f"{source}/ffn/linear_1", f"{target}.fc2")
            names |= both(f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
            if side == "decoder":
                names |= norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
                names |= both(f"{source}/attention/linear_0", f"{target}.encoder_attn.q_proj")
                names |= both(f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
    return names


def cut(tensors: dict[str, Tensor], layers: dict[str, int]) -> dict[str, Tensor]:
    """What is fused: queries, keys and values, in this order. Keys have a bias of zeros there and none here."""
    found = {}
    for side, count in layers.items():
        for at in range(count):
            source, target = f"{side}/layer_{at}", f"model.{side}.layers.{at}"
            fused = [("self_attention/linear_0", "self_attn", "qkv")]
            if side == "decoder":
                fused.append(("attention/linear_1", "encoder_attn", "kv"))
            for name, module, parts in fused:
                for kind in ("weight", "bias"):
                    for part, tensor in zip(parts, tensors[f"{source}/{name}/{kind}"].parts(len(parts))):
                        if (kind, part) == ("bias", "k"):
                            assert not any(tensor.data.replace(b"\x00\x80", b"")), "keys have a bias"
                        else:
                            found[f"{target}.{module}.{part}_proj.{kind}"] = tensor
    return found


def write(tensors: dict[str, Tensor], path: Path):
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in sorted(tensors.items()):
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [start, start + len(tensor.data)]}
        start += len(tensor.data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in sorted(tensors.items()):
            file.write(tensor.data)


def configuration(tensors: dict[str, Tensor], layers: dict[str, int], tokens: dict[str, int]) -> dict:
    shape = {name: tensor.shape for name, tensor in tensors.items()}
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "vocab_size": shape["decoder/embeddings/weight"][0],
        "num_mel_bins": shape["encoder/conv1/weight"][1],
        "d_model": shape["encoder/conv1/weight"][0],
        "encoder_layers": layers["encoder"],
        "encoder_attention_heads": scalar(tensors["encoder/num_heads"]),
        "encoder_ffn_dim": shape["encoder/layer_0/ffn/linear_0/weight"][0],
        "decoder_layers": layers["decoder"],
        "decoder_attention_heads": scalar(tensors["decoder/num_heads"]),
        "decoder_ffn_dim": shape["decoder/layer_0/ffn/linear_0/weight"][0],
        "max_source_positions": shape["encoder/position_encodings/encodings"][0],
        "max_target_positions": shape["decoder/position_encodings/encodings"][0],
        "scale_embedding": False,
        "decoder_start_token_id": tokens[START],
        "bos_token_id": tokens[END],
        "eos_token_id": tokens[END],
        "pad_token_id": tokens[END],
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "dtype": "float16",
    }


def generation(config: dict, own: dict, tokens: dict[str, int]) -> dict:
    """`own` is CTranslate2's config.json."""
    return {
        "decoder_start_token_id": tokens[START],
        "bos_token_id": tokens[END],
        "eos_token_id": tokens[END],
        "pad_token_id": tokens[END],
        "max_length": config["max_target_positions"],
        "no_timestamps_token_id": tokens[NO_TIMES],
        "is_multilingual": False,
        "return_timestamps": False,
        "suppress_tokens": own["suppress_ids"],
        "begin_suppress_tokens": own["suppress_ids_begin"],
        "alignment_heads": own["alignment_heads"],
    }


def main(source: Path, output: Path):
    with (source / "model.bin").open("rb") as file:
        tensors = read(file)
    layers = {side: sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in tensors) for side in ("encoder", "decoder")}
    weights = {new: tensors[old] for old, new in renamed(layers).items()} | cut(tensors, layers)
    unknown = {tensor.dtype for tensor in weights.values()} - NAMES.keys()
    if unknown:
        raise SystemExit(f"weights of CTranslate2's types {sorted(unknown)}: only float32 and float16 are converted")
    for name, tensor in weights.items():
        values = 1
        for length in tensor.shape:
            values *= length
        assert values * SIZES[tensor.dtype] == len(tensor.data), name
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokens = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    config = configuration(tensors, layers, tokens)
    own = json.loads((source / "config.json").read_text())
    output.mkdir(parents=True, exist_ok=True)
    write(weights, output / "model.safetensors")
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (output / "generation_config.json").write_text(json.dumps(generation(config, own, tokens), indent=2) + "\n")
    shutil.copyfile(source / "tokenizer.json", output / "tokenizer.json")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
