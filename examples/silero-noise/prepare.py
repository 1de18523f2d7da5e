"""Makes recordings of prompts over hold music, with label tracks and a manifest, from what `fetch` brought.

    prepare.py DIR

Training hears two voices and one artist; the tests hear three other voices and two other artists. All at 8 kHz, as the packages have it.

How loud speech is against music: in the tests, the root mean square of the whole recording of speech, silences included, against that of the
music. In training, that of the frames that are speech, which is louder than the whole: the same ratio is more music in a training mix.
"""

import argparse
import csv
import wave
from pathlib import Path

import numpy as np

RATE = 8000
# 32 ms, a frame of the network.
FRAME = 256
SOUNDS, MUSIC = "usr/share/asterisk/sounds", "usr/share/asterisk/moh"
TRAIN_VOICES = ["es_MX_f_Allison", "it_IT_f_Menardi"]
TEST_VOICES = ["it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU", "fr_CA_f_June"]
TRAIN_MUSIC = ["macroform-cold_day", "macroform-robot_dity", "macroform-the_simplicity"]
TEST_MUSIC = ["manolo_camp-morning_coffee", "reno_project-system"]
# Tones, and animals.
NO_SPEECH = {"beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys", "tt-weasels", "tt-allbusy", "tt-somethingwrong"}
EXAMPLES, EXAMPLE_SECONDS, TEST_SECONDS = 1200, 6.4, 240
# Of the tests, in dB, speech by its whole recording.
SNRS = [10, 5, 0, -5]
# Root mean square of the frames of a prompt that are speech, and of music on its own.
LEVEL = 0.05
# Seconds of prompts one after the other, and of silence behind them.
UTTERANCE, GAP = (1.5, 4.5), (0.5, 4.5)
LONGEST_PROMPT = 6.0
# Seconds after which the tests change the track.
TURN = 30


def read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768


def write(path: Path, samples: np.ndarray):
    # Louder than full scale is turned down rather than cut.
    samples = samples / max(1.0, np.abs(samples).max())
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def spoken(samples: np.ndarray) -> np.ndarray:
    """Which frames of a clean prompt are speech: energy above that of the loudest less 40 dB, gaps of up to five frames closed."""
    energy = (samples.reshape(-1, FRAME) ** 2).sum(axis=1)
    loud = np.flatnonzero(energy > 1e-4 * energy.max())
    speech = np.zeros(len(energy), bool)
    for at, following in zip(loud, [*loud[1:], loud[-1]]):
        speech[at : following if following - at <= 6 else at + 1] = True
    speech[loud] = True
    return speech


def prompts(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The prompts of a voice at one level, in whole frames, with the frames that are speech."""
    found = []
    for path in sorted(folder.rglob("*.wav")):
        samples = read(path)
        if path.parent.name == "silence" or path.stem in NO_SPEECH or not 0.3 <= len(samples) / RATE <= LONGEST_PROMPT:
            continue
        samples = np.pad(samples, (0, -len(samples) % FRAME))
        speech = spoken(samples)
        found.append((samples * LEVEL / rms(samples[np.repeat(speech, FRAME)]), speech))
    return found


def monologue(rng: np.random.Generator, voice: list, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts one after the other with silences between, begun anywhere, and the frames that are speech."""
    samples, speech, length = [], [], 0
    skip = int(rng.integers(0, 4 * RATE // FRAME))

    def add(part: np.ndarray, own: np.ndarray):
        nonlocal length
        samples.append(part)
        speech.append(own)
        length += len(own)

    def silence(seconds: float):
        count = int(seconds * RATE / FRAME)
        add(np.zeros(count * FRAME), np.zeros(count, bool))

    while length < frames + skip:
        end = length + rng.uniform(*UTTERANCE) * RATE / FRAME
        while length < end:
            add(*voice[rng.integers(len(voice))])
        silence(rng.uniform(*GAP))
    chosen = slice(skip, skip + frames)
    return np.concatenate(samples)[chosen.start * FRAME : chosen.stop * FRAME], np.concatenate(speech)[chosen]


def stretch_of(rng: np.random.Generator, track: np.ndarray, count: int) -> np.ndarray:
    """A part of a track, somewhat faster or slower, at a root mean square of 1."""
    factor = rng.uniform(0.8, 1.25)
    length = int(count * factor) + 2
    start = rng.integers(0, len(track) - length)
    part = np.interp(np.arange(count) * factor, np.arange(length), track[start : start + length])
    return part / max(rms(part), 1e-4)


def coloured(rng: np.random.Generator, samples: np.ndarray, depth: float) -> np.ndarray:
    """Through an equaliser of its own, up to `depth` dB at six places of the spectrum, at the same root mean square."""
    spectrum = np.fft.rfft(samples)
    gains = np.interp(np.linspace(0, 5, len(spectrum)), np.arange(6), rng.uniform(-depth, depth, 6))
    changed = np.fft.irfft(spectrum * 10 ** (gains / 20), len(samples))
    return changed * rms(samples) / max(rms(changed), 1e-9)


def other_voice(rng: np.random.Generator, voice: list, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A monologue somewhat faster and higher, or slower and deeper."""
    factor = rng.uniform(0.85, 1.15)
    samples, speech = monologue(rng, voice, int(frames * factor) + 2)
    samples = np.interp(np.arange(frames * FRAME) * factor, np.arange(len(samples)), samples)
    # The frame of the middle of each.
    return samples, speech[((np.arange(frames) + 0.5) * factor).astype(int)]


def music_of(rng: np.random.Generator, tracks: list[np.ndarray], count: int) -> np.ndarray:
    """A part of a track, half of the time over another, coloured."""
    music = stretch_of(rng, tracks[rng.integers(len(tracks))], count)
    if rng.random() < 0.5:
        other = stretch_of(rng, tracks[rng.integers(len(tracks))], count)
        music += 10 ** (rng.uniform(-6, 6) / 20) * other
    return coloured(rng, music / rms(music), 6)


def example(rng: np.random.Generator, voices: list, tracks: list[np.ndarray], frames: int) -> tuple[np.ndarray, np.ndarray]:
    gain = 10 ** (rng.uniform(-8, 8) / 20)
    if rng.random() < 0.3:
        return gain * 10 ** (rng.uniform(-15, 8) / 20) * LEVEL * music_of(rng, tracks, frames * FRAME), np.zeros(frames, bool)
    samples, speech = other_voice(rng, voices[rng.integers(len(voices))], frames)
    samples = coloured(rng, samples, 3)
    if rng.random() < 0.85:
        # Against the level of the frames that are speech.
        samples = samples + LEVEL * 10 ** (-rng.uniform(-8, 12) / 20) * music_of(rng, tracks, frames * FRAME)
    return gain * samples, speech


def write_track(path: Path, speech: np.ndarray):
    """A label track as Audacity has it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech.astype(int), [0]])))
    lines = [f"{start * FRAME / RATE:.6f}\t{end * FRAME / RATE:.6f}\tspeech\n" for start, end in edges.reshape(-1, 2)]
    path.write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=Path)
    dir = parser.parse_args().dir
    audio = dir / "audio"
    audio.mkdir(exist_ok=True)
    rows = []

    def add(name: str, samples: np.ndarray, label: str, split: str):
        write(audio / f"{name}.wav", samples)
        rows.append([f"audio/{name}.wav", label, split])

    tracks = {name: read(dir / MUSIC / f"{name}.wav") for name in TRAIN_MUSIC + TEST_MUSIC}
    rng = np.random.default_rng(0)
    voices, own = [prompts(dir / SOUNDS / voice) for voice in TRAIN_VOICES], [tracks[name] for name in TRAIN_MUSIC]
    for number in range(EXAMPLES):
        samples, speech = example(rng, voices, own, int(EXAMPLE_SECONDS * RATE / FRAME))
        name, label = f"train-{number:04}", "none"
        if speech.any():
            label = f"audio/{name}.txt"
            write_track(dir / label, speech)
        add(name, samples, label, "train")

    rng = np.random.default_rng(1)
    frames = TEST_SECONDS * RATE // FRAME
    for voice in TEST_VOICES:
        samples, speech = monologue(rng, prompts(dir / SOUNDS / voice), frames)
        label = f"audio/{voice}.txt"
        write_track(dir / label, speech)
        pieces = []
        for turn in range(TEST_SECONDS // TURN):
            track = tracks[TEST_MUSIC[turn % len(TEST_MUSIC)]]
            start = rng.integers(0, len(track) - TURN * RATE)
            pieces.append(track[start : start + TURN * RATE] / rms(track[start : start + TURN * RATE]))
        music = np.concatenate(pieces)
        add(f"{voice}_clean", samples, label, "test")
        for snr in SNRS:
            # The music's root mean square is 1, speech's that of all four minutes.
            add(f"{voice}_{snr}dB", samples + rms(samples) * 10 ** (-snr / 20) * music, label, "test")
    for name in TEST_MUSIC:
        add(f"music_{name}", LEVEL * tracks[name] / rms(tracks[name]), "none", "test")
    with open(dir / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])


if __name__ == "__main__":
    main()
