"""Checks the example against other implementations: the model as it is against CTranslate2, the adapted one against transformers + PEFT.

    LOWRANK=target/debug/lowrank python examples/whisper-digits/check.py RUN...

RUN is a folder of `run`'s, such as data/runs/both.carlo.0. Needs interop/requirements.txt and ctranslate2.
"""

import os
import sys
import tempfile
import warnings
import wave
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "interop"))
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import ctranslate2
import torch

from lowrank import Lowrank
from models import whisper
from tally import Tally

BASE, ORIGINAL = HERE / "data/base", HERE / "data/ctranslate2"
VOICES = {"carlo": "it_IT_m_Carlo", "menardi": "it_IT_f_Menardi"}
OTHER = {"carlo": "menardi", "menardi": "carlo"}


def at_16_khz(path: Path) -> torch.Tensor:
    """A recording of 8 kHz at twice the rate, by its Fourier transform, so that all read the same samples."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000, path
        sound = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16).double() / 32768
    return (2 * torch.fft.irfft(torch.fft.rfft(sound), 2 * len(sound))).float()


def doubled(voice: str, folder: Path) -> Path:
    """A manifest like test_VOICE.csv, of the recordings at 16 kHz."""
    rows = []
    for row in (HERE / f"test_{voice}.csv").read_text().splitlines():
        path, *rest = row.split(",")
        if path != "path":
            sound = folder / f"{voice}_{Path(path).name}"
            whisper.write_wav(sound, at_16_khz(HERE / path))
            path = sound.name
        rows.append(",".join([path, *rest]))
    manifest = folder / f"{voice}.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def original(found: list[dict]):
    """`found` is what lowrank writes in whole windows."""
    model = ctranslate2.models.Whisper(str(ORIGINAL), device="cpu", compute_type="float32")
    base = whisper.load(BASE, None)
    config, wrong = base.generation_config, []
    prompt = [config.decoder_start_token_id, config.no_timestamps_token_id]
    for line in found:
        x = whisper.features(base, whisper.read_wav(Path(line["path"])))
        view = ctranslate2.StorageView.from_array(x.numpy())
        tokens = model.generate(view, [prompt], beam_size=1, max_length=config.max_length)[0].sequences_ids[0]
        if tokens != line["tokens"]:
            wrong.append(f"{Path(line['path']).name}: {line['text']!r} {line['tokens'][:12]}, not {tokens[:12]}")
    assert not wrong, f"{len(wrong)} of {len(found)} texts differ: {'; '.join(wrong)}"
    print(f"      {len(found)} texts, {sum(len(line['tokens']) for line in found)} tokens")


def main() -> int:
    warnings.filterwarnings("ignore")
    tally, binary = Tally(), Lowrank(Path(os.environ.get("LOWRANK", HERE.parents[1] / "target/release/lowrank")).absolute())
    with tempfile.TemporaryDirectory() as folder:
        manifests = {voice: doubled(voice, Path(folder)) for voice in VOICES}
        for voice, manifest in manifests.items():
            with tally.check(f"{voice}: the model as it is writes what CTranslate2 writes"):
                original(whisper.predictions(binary, BASE, None, manifest, Path(folder) / "base.jsonl", "--batch-size", 11))
        for run in map(Path, sys.argv[1:]):
            voice = OTHER[run.name.split(".")[1]]
            with tally.check(f"{voice}: transformers + PEFT write with {run.name} what lowrank writes, merged or not"):
                flags = ("--window-seconds", 2)
                found = whisper.predictions(binary, BASE, run / "adapter", manifests[voice], Path(folder) / "run.jsonl", *flags)
                whisper.compare(whisper.load(BASE, run / "adapter", 2), found)
                whisper.compare(whisper.load(BASE, run / "adapter", 2, merge=True), found)
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
