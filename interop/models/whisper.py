"""Whisper: adapters of lowrank's in transformers + PEFT, and PEFT's in lowrank, write the same texts with the same probabilities."""

import json
import wave
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file
from transformers import GenerationMixin, WhisperFeatureExtractor, WhisperForConditionalGeneration

from lowrank import Lowrank
from tally import Tally

GOLDEN = Path(__file__).parents[2] / "golden/whisper"
RATE = 16_000
LOG_PROBS = 1e-4
TRAINING = """
[model]
base = "{base}"
[data]
manifest = "sounds.csv"
[lora]
r = 4
lora_alpha = 8
target_modules = ["conv1", "conv2", "q_proj", "v_proj"]
init_lora_weights = "gaussian"
[train]
max_steps = 20
batch_size = 2
learning_rate = 2e-2
schedule = "constant"
"""


@dataclass
class Text:
    tokens: list[int]
    log_probs: torch.Tensor


def read_wav(path: Path) -> torch.Tensor:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), path
        return torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16).float() / 32768


def write_wav(path: Path, sound: torch.Tensor):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy().tobytes())


def load(base: Path, adapter: Path | None, seconds: float | None = None, merge: bool = False) -> WhisperForConditionalGeneration:
    """A base for windows of so many seconds, with an adapter.

    transformers' encoder takes one length of windows alone, that of its table of positions, so the table is cut. It reads `conv1.stride`, which
    PEFT's wrapper of a convolution does not have: it is set here; merging needs no such thing.
    """
    model = WhisperForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    if seconds is not None:
        encoder, positions = model.model.encoder, int(seconds * 50)
        model.config.max_source_positions = encoder.max_source_positions = positions
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:positions].clone())
    if adapter is None:
        return model.eval()
    wrapped = peft.PeftModel.from_pretrained(model, adapter)
    if merge:
        return wrapped.merge_and_unload().eval()
    for conv in (model.model.encoder.conv1, model.model.encoder.conv2):
        if isinstance(conv, peft.tuners.lora.LoraLayer):
            conv.stride = conv.get_base_layer().stride
    return wrapped.eval().base_model.model


def features(model: WhisperForConditionalGeneration, sound: torch.Tensor) -> torch.Tensor:
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    extractor.n_samples = model.config.max_source_positions * RATE // 50
    return extractor(sound.numpy(), sampling_rate=RATE, return_tensors="pt").input_features


def transcribe(model: WhisperForConditionalGeneration, sound: torch.Tensor, beams: int = 1) -> Text:
    """One window by the plain search, and what the model gives each token after those before it."""
    config = model.generation_config
    prompt = [config.decoder_start_token_id, config.no_timestamps_token_id]
    x = features(model, sound)
    with torch.no_grad():
        row = GenerationMixin.generate(model, input_features=x, decoder_input_ids=torch.tensor([prompt]), num_beams=beams)[0].tolist()
        tokens = row[len(prompt) :]
        tokens = tokens[: tokens.index(config.eos_token_id)] if config.eos_token_id in tokens else tokens
        said = torch.tensor([prompt + tokens])
        rows = model(input_features=x, decoder_input_ids=said).logits[0].log_softmax(-1)[len(prompt) - 1 :]
    return Text(tokens, torch.stack([rows[at, token] for at, token in enumerate(tokens)]) if tokens else torch.empty(0))


def predictions(binary: Lowrank, base: Path, adapter: Path | None, manifest: Path, output: Path, *flags: object) -> list[dict]:
    adapted = () if adapter is None else ("--adapter", adapter)
    binary.run("predict", "--model", base, *adapted, "--manifest", manifest, "--output", output, *flags)
    return [json.loads(line) for line in output.read_text().splitlines()]


def compare(model: WhisperForConditionalGeneration, found: list[dict], beams: int = 1):
    """`found` is what lowrank writes of recordings that fit into a window."""
    assert found, "no predictions"
    worst = 0.0
    for line in found:
        expected = transcribe(model, read_wav(Path(line["path"])), beams)
        assert line["tokens"] == expected.tokens, f"{line['path']}: {line['tokens']}, not {expected.tokens}"
        if expected.tokens:
            worst = max(worst, (torch.tensor(line["log_probs"]) - expected.log_probs).abs().max().item())
    assert worst <= LOG_PROBS, f"logarithms of probabilities differ by up to {worst:.3g}"
    print(f"      {len(found)} texts, {sum(len(line['tokens']) for line in found)} tokens, log-probabilities within {worst:.2g}")


def check(tally: Tally, binary: Lowrank, scratch: Path):
    folder = scratch / "whisper"
    folder.mkdir()
    sounds = load_file(GOLDEN / "io.safetensors")["audio"]
    rows = ["path,text,split"]
    for at, (sound, text) in enumerate(zip(sounds, ("zero uno due", "ventotto"))):
        write_wav(folder / f"{at}.wav", sound)
        rows.append(f"{at}.wav,{text},train")
    manifest = folder / "sounds.csv"
    manifest.write_text("\n".join(rows) + "\n")
    base, theirs, ours = GOLDEN / "base", GOLDEN / "adapter", folder / "run/adapter"

    for beams in (1, 3):
        with tally.check(f"Whisper: transformers writes what lowrank writes, {beams} beams"):
            compare(load(base, None), predictions(binary, base, None, manifest, folder / "base.jsonl", "--num-beams", beams), beams)
    with tally.check("Whisper: it does so in windows of half a second"):
        # Half of the window is heard: longer recordings are for lowrank to cut, so these are short.
        short = folder / "short.csv"
        write_wav(folder / "short.wav", sounds[0][:7000])
        short.write_text("path,text,split\nshort.wav,uno,test\n")
        compare(load(base, None, 0.5), predictions(binary, base, None, short, folder / "short.jsonl", "--window-seconds", 0.5))
    with tally.check("Whisper: lowrank runs an adapter that PEFT made as PEFT does"):
        compare(load(base, theirs), predictions(binary, base, theirs, manifest, folder / "theirs.jsonl"))
    with tally.check("Whisper: PEFT runs an adapter that lowrank trained as lowrank does, merged or not"):
        settings = folder / "adapt.toml"
        settings.write_text(TRAINING.format(base=base))
        binary.train(settings, folder / "run")
        found = predictions(binary, base, ours, manifest, folder / "ours.jsonl")
        plain = predictions(binary, base, None, manifest, folder / "plain.jsonl")
        assert [line["tokens"] for line in found] != [line["tokens"] for line in plain], "training changed nothing: a test of nothing"
        compare(load(base, ours), found)
        compare(load(base, ours, merge=True), found)
