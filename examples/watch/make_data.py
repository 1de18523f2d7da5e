"""Make `data/` and the manifests from the smartwatch recordings that seglearn ships (BSD-3-Clause).

    python make_data.py                      # fetches the pinned package with pip
    python make_data.py path/to/seglearn.whl # uses a wheel that is already there

Needs numpy and pip. What it writes is committed, so run it only to check or to change the copy; a second run changes no byte.
"""

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "seglearn==1.2.5"
MEMBER = "seglearn/data/watch_dataset.npy"
LICENSE = "seglearn-1.2.5.dist-info/LICENSE"
# The source is a pickle, and unpickling runs code: only these exact bytes are ever opened.
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

HERE = Path(__file__).parent
DATA = HERE / "data"
SIDES = {0: "left", 1: "right"}
# g -> mg and rad/s -> mrad/s: the widest value, -28.96 rad/s, still fits 16 bits.
STEPS_PER_UNIT = 1000


def fetch_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def read_wheel(path: Path) -> tuple[dict, bytes]:
    """The recordings as seglearn's `load_watch` returns them, and the licence text."""
    with zipfile.ZipFile(path) as wheel:
        raw, licence = wheel.read(MEMBER), wheel.read(LICENSE)
    found = hashlib.sha256(raw).hexdigest()
    if found != SHA256:
        sys.exit(f"error: {MEMBER} has SHA-256 {found}, expected {SHA256}")
    return np.load(io.BytesIO(raw), allow_pickle=True).item(), licence


def quantise(recording: np.ndarray) -> np.ndarray:
    steps = np.rint(recording * STEPS_PER_UNIT)
    assert np.abs(steps).max() <= np.iinfo(np.int16).max, "a value does not fit 16 bits"
    return np.ascontiguousarray(steps.astype("<i2"))


def write_recordings(watch: dict) -> list[dict]:
    """One NPY file a recording, and a row for each, sorted by subject, arm and exercise number."""
    rows = []
    for recording, label, subject, side in zip(watch["X"], watch["y"], watch["subject"], watch["side"]):
        name = f"s{subject:02}_{SIDES[int(side)]}_{watch['y_labels'][label]}.npy"
        with open(DATA / name, "wb") as file:
            np.lib.format.write_array(file, quantise(recording), version=(1, 0))
        rows.append({"name": name, "label": watch["y_labels"][label], "key": (subject, int(side), label)})
    return sorted(rows, key=lambda row: row["key"])


def write_manifest(name: str, lines: list[tuple[str, str, str, str, str]]):
    with open(HERE / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "start", "end"])
        writer.writerows(lines)


def write_manifests(rows: list[dict]):
    base = [row for row in rows if row["key"][0] <= 8 and row["key"][1] == 1]
    write_manifest("base.csv", [(f"data/{row['name']}", row["label"], "train", "", "") for row in base])
    for subject in (9, 10):
        for side, arm in SIDES.items():
            own = [row for row in rows if row["key"][:2] == (subject, side)]
            # The gap from 30 % to 35 % keeps the last training window and the first test window apart.
            train = [(f"data/{row['name']}", row["label"], "train", "0%", "30%") for row in own]
            test = [(f"data/{row['name']}", row["label"], "test", "35%", "100%") for row in own]
            write_manifest(f"s{subject:02}_{arm}.csv", train + test)


def main():
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch_wheel(Path(folder))
        watch, licence = read_wheel(wheel)
    (DATA / "LICENSE").write_bytes(licence)
    rows = write_recordings(watch)
    write_manifests(rows)
    size = sum(path.stat().st_size for path in DATA.glob("*.npy"))
    print(f"{len(rows)} recordings, {size:,} bytes in {DATA}")


if __name__ == "__main__":
    main()
