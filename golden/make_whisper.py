"""Makes whisper/: a tiny random Whisper as transformers saves it, an adapter as PEFT saves it, and what the two make of some sound."""

import argparse
import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, GenerationMixin, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

RATE = 16_000
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
TARGETS = ["conv1", "conv2", "q_proj", "v_proj"]
TEXTS = [" zero uno due", " ventotto"]
WORDS = "zero uno due tre quattro cinque sei sette otto nove dieci venti ventuno ventotto trenta quaranta cinquanta sessanta"


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False)
    made.train_from_iterator([f" {word}" for word in WORDS.split()], trainer)
    return made


def configuration(vocabulary: int) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=vocabulary, num_mel_bins=80, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=24, max_source_positions=50, max_target_positions=24,
        decoder_start_token_id=1, bos_token_id=0, eos_token_id=0, pad_token_id=0, begin_suppress_tokens=None, init_std=0.35,
    )


def generation() -> GenerationConfig:
    return GenerationConfig(
        decoder_start_token_id=1, bos_token_id=0, eos_token_id=0, pad_token_id=0, max_length=24, no_timestamps_token_id=2,
        is_multilingual=False, suppress_tokens=[1, 2, 7], begin_suppress_tokens=[0, 223], return_timestamps=False,
    )


def model() -> WhisperForConditionalGeneration:
    """Random, and not only in its weights: norms and biases begin as ones and zeros."""
    made = WhisperForConditionalGeneration(configuration(tokenizer().get_vocab_size())).eval()
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if name.endswith("bias") or "layer_norm" in name:
                tensor.add_(0.2 * torch.randn_like(tensor))
        # So that it does not say one word for ever, and comes to an end.
        decoder = made.model.decoder
        decoder.embed_positions.weight.mul_(4)
        decoder.embed_tokens.weight.mul_(0.6)
        decoder.embed_tokens.weight[0] = 1.05 * decoder.embed_tokens.weight[222]
    made.generation_config = generation()
    return made


def sound(seconds: float) -> torch.Tensor:
    """Two tones that come and go, and noise; whole 16-bit numbers, as in a WAV file."""
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * (300 + 200 * time) * time) * torch.sin(2 * torch.pi * 3 * time) ** 2
    noise = 0.02 * torch.randn(len(time), dtype=torch.float64)
    return (32768 * (tone + 0.1 * torch.sin(2 * torch.pi * 1900 * time) + noise)).round().clamp(-32768, 32767).float() / 32768


def features(audio: torch.Tensor, seconds: int | float) -> torch.Tensor:
    made = WhisperFeatureExtractor(feature_size=80, chunk_length=seconds)
    made.n_samples = int(seconds * RATE)
    return made(audio.numpy(), sampling_rate=RATE, return_tensors="pt").input_features


def shortened(whole: WhisperForConditionalGeneration, positions: int) -> WhisperForConditionalGeneration:
    """The same model for a shorter window."""
    config = WhisperConfig(**{**whole.config.to_dict(), "max_source_positions": positions})
    made = WhisperForConditionalGeneration(config).eval()
    state = whole.state_dict()
    state["model.encoder.embed_positions.weight"] = state["model.encoder.embed_positions.weight"][:positions].clone()
    made.load_state_dict(state)
    made.generation_config = generation()
    return made


def teach(tokens: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels: the prompt is given, the text and its end are learned."""
    texts = [tokens.encode(text, add_special_tokens=False).ids for text in TEXTS]
    longest = max(map(len, texts)) + 2
    inputs = [[1, 2, *text] + [0] * (longest - 2 - len(text)) for text in texts]
    labels = [[-100, *text, 0] + [-100] * (longest - 2 - len(text)) for text in texts]
    return torch.tensor(inputs), torch.tensor(labels)


def generated(network: WhisperForConditionalGeneration, x: torch.Tensor, beams: int) -> torch.Tensor:
    """One window by the plain search: Whisper's own `generate` goes on to further segments."""
    prompt = torch.tensor([[1, 2]] * len(x))
    return GenerationMixin.generate(network, input_features=x, decoder_input_ids=prompt, num_beams=beams)


def adapted(whole: WhisperForConditionalGeneration, output: Path):
    """A LoRA adapter with random factors. PEFT's wrapper of a convolution has no stride, which Whisper's encoder reads."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)
    made = get_peft_model(whole, config)
    for name in ("conv1", "conv2"):
        wrapped = getattr(made.base_model.model.model.encoder, name)
        wrapped.stride = wrapped.get_base_layer().stride
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "lora_" in name:
                tensor.mul_(0.5)
    made.save_pretrained(output / "adapter")
    (output / "adapter/README.md").unlink(missing_ok=True)
    return made.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "whisper")
    output = parser.parse_args().output
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    output.mkdir(parents=True, exist_ok=True)
    tokens, whole = tokenizer(), model()
    whole.save_pretrained(output / "base")
    tokens.save(str(output / "base/tokenizer.json"), pretty=False)

    audio = torch.stack([sound(1.0), torch.nn.functional.pad(sound(0.6), (0, 6400))])
    inputs, labels = teach(tokens)
    io = {"audio": audio, "decoder_input_ids": inputs, "labels": labels}
    io["features"] = torch.cat([features(row, 1) for row in audio])
    io["features_half"] = features(audio[0], 0.5)
    io["features_30_every_50th"] = features(audio[0], 30)[..., ::50].contiguous()

    def told(name: str, network, x: torch.Tensor):
        with torch.no_grad():
            io[f"{name}.encoder"] = network.model.encoder(x).last_hidden_state
            ids = inputs[: len(x)]
            io[f"{name}.logits"] = network(input_features=x, decoder_input_ids=ids).logits
            for beams in (1, 3):
                io[f"{name}.generated_{beams}"] = generated(network, x, beams)

    told("base", whole, io["features"])
    told("half", shortened(whole, 25), io["features_half"])
    wrapped = adapted(whole, output)
    told("adapted", wrapped.base_model.model, io["features"])
    loss = wrapped(input_features=io["features"], decoder_input_ids=inputs, labels=labels).loss
    loss.backward()
    io["loss"] = loss.detach().reshape(1)
    for name, tensor in wrapped.named_parameters():
        if "lora_" in name:
            io[f"gradient.{name.replace('.default', '')}"] = tensor.grad
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in io.items()}, output / "io.safetensors")
    for name in ("base", "half", "adapted"):
        for beams in (1, 3):
            for row in io[f"{name}.generated_{beams}"]:
                print(name, beams, row.tolist(), repr(tokens.decode(row.tolist())))
    print(json.dumps({"loss": loss.item()}))


if __name__ == "__main__":
    main()
