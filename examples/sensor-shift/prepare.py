"""Recordings and manifests from the two files of BasicMotions: prepare.py DIR SEED...

`DIR/base.csv` lists the training recordings as they are. A seed draws three test recordings of each activity to adapt on and leaves the other seven to the test:
`DIR/worn-1-3-0.csv` is mounting 1 with seed 0, `DIR/worn-1-1-0.csv` has one of the three alone and the same test, `DIR/as-recorded-3-0.csv` is the watch as it was worn.
Needs nothing but Python.
"""

import csv
import random
import struct
import sys
from pathlib import Path

# The watch worn another way: where each of the three axes comes from, its sign, and the sensitivity. All are rotations, so the gyroscope's axes turn as the accelerometer's do.
WORN = {
    "as-recorded": ((0, 1, 2), (1, 1, 1), 1.0),
    "worn-1": ((1, 0, 2), (-1, 1, 1), 0.5),  # a quarter turn about z, half the sensitivity
    "worn-2": ((0, 1, 2), (1, -1, -1), 1.0),  # a half turn about x
    "worn-3": ((0, 1, 2), (-1, -1, 1), 0.5),  # a half turn about z, half the sensitivity
    "worn-4": ((1, 2, 0), (1, 1, 1), 1.0),  # a third of a turn about the diagonal: every axis is another
}
SHOTS = (1, 3)

Recording = list[list[float]]


def read(path: Path) -> list[tuple[Recording, str]]:
    """The recordings of a file, six channels of 100 samples each, with their activities."""
    lines = path.read_text().splitlines()
    parts = [line.split(":") for line in lines[lines.index("@data") + 1 :]]
    found = [([[float(value) for value in channel.split(",")] for channel in channels], label) for *channels, label in parts]
    assert len(found) == 40 and all(len(one) == 6 and {len(channel) for channel in one} == {100} for one, _ in found), path
    return found


def worn(recording: Recording, axes: tuple, signs: tuple, sensitivity: float) -> Recording:
    turned = [(sensor + axis, sign * sensitivity) for sensor in (0, 3) for axis, sign in zip(axes, signs)]
    return [[value * scale for value in recording[channel]] for channel, scale in turned]


def write_npy(path: Path, recording: Recording):
    """A row a sample, a column a channel, 32-bit floats."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(recording[0])}, {len(recording)}), }}"
    header = header.ljust(-(10 + len(header) + 1) % 64 + len(header)) + "\n"
    values = [value for sample in zip(*recording) for value in sample]
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(values)}f", *values))


def write(folder: Path, name: str, recordings: list[tuple[Recording, str]]) -> list[tuple[str, str]]:
    rows = [(f"data/{name}-{at:02}.npy", label) for at, (_, label) in enumerate(recordings)]
    for (path, _), (recording, _) in zip(rows, recordings):
        write_npy(folder / path, recording)
    return rows


def write_manifest(path: Path, rows: list[tuple[str, str, str]]):
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split"), *rows])


def draw(labels: list[str], seed: int) -> list[list[int]]:
    """For every activity the recordings to adapt on; who takes fewer takes the first."""
    chance = random.Random(seed)
    own = [[at for at, one in enumerate(labels) if one == label] for label in sorted(set(labels))]
    return [chance.sample(places, max(SHOTS)) for places in own]


def main():
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]
    (folder / "data").mkdir(exist_ok=True)
    train, test = (read(folder / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST"))
    write_manifest(folder / "base.csv", [(*row, "train") for row in write(folder, "base", train)])
    for name, change in WORN.items():
        rows = write(folder, name, [(worn(recording, *change), label) for recording, label in test])
        for seed in seeds:
            drawn = draw([label for _, label in test], seed)
            held_out = [(*row, "test") for at, row in enumerate(rows) if not any(at in own for own in drawn)]
            for shots in SHOTS:
                adapt = [(*rows[at], "train") for own in drawn for at in own[:shots]]
                write_manifest(folder / f"{name}-{shots}-{seed}.csv", adapt + held_out)


if __name__ == "__main__":
    main()
