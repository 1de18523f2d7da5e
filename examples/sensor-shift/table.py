"""The tables of the runs in a folder, and the figures as a line of JSON: table.py RUNS

Ends with 1 when what the README promises does not hold.
"""

import json
import sys
from pathlib import Path
from statistics import mean, median

METHODS = {"lora": "LoRA, r = 8", "full": "full fine-tuning", "biases": "biases alone", "nothing": "from nothing, no base"}
MOUNTINGS = {
    1: "1: quarter turn about z, half the sensitivity",
    2: "2: half turn about x",
    3: "3: half turn about z, half the sensitivity",
    4: "4: every axis another",
}
SHOTS = {3: "three of each activity", 1: "one of each activity"}
# What the README promises, in the mean of mountings and seeds: accuracy of the base at most, of LoRA at least, by recordings of each activity, and of the base as recorded.
MOST, LEAST, AS_RECORDED = 0.55, {3: 0.95, 1: 0.90}, 0.95


def shown(values: list[float]) -> str:
    """The mean, and where there are several, the least and the most."""
    cells = [f"{value:.3f}".removeprefix("0") for value in (mean(values), min(values), max(values))]
    return cells[0] if len(values) == 1 else f"{cells[0]} ({cells[1]} to {cells[2]})"


def line(cells: list[str]):
    print("| " + " | ".join(cells) + " |")


class Runs:
    def __init__(self, folder: Path):
        self.folder = folder
        self.seeds = sorted(int(path.name.removeprefix("base-")) for path in folder.glob("base-*"))

    def results(self, method: str, shots: int, mountings=tuple(MOUNTINGS)) -> list[dict]:
        return self.read(method, shots, mountings, "result.json")

    def original(self, method: str, shots: int) -> list[float]:
        return [one["accuracy"] for one in self.read(method, shots, tuple(MOUNTINGS), "original.json")]

    def base_original(self) -> list[float]:
        return [json.loads((self.folder / f"base-{seed}" / "original.json").read_text())["accuracy"] for seed in self.seeds]

    def read(self, method: str, shots: int, mountings, name: str) -> list[dict]:
        paths = [self.folder / f"{method}-{mounting}-{shots}-{seed}" / name for mounting in mountings for seed in self.seeds]
        return [json.loads(path.read_text()) for path in paths]


def accuracies(results: list[dict], when: str = "after") -> list[float]:
    return [one[when]["accuracy"] for one in results]


def main() -> int:
    runs = Runs(Path(sys.argv[1]))
    told = {}
    for shots, title in SHOTS.items():
        line([f"adapted on {title}", "base", *METHODS.values()])
        line(["---"] * (2 + len(METHODS)))
        for number, mounting in MOUNTINGS.items():
            before = accuracies(runs.results("lora", shots, (number,)), "before")
            line([mounting, shown(before), *(shown(accuracies(runs.results(method, shots, (number,)))) for method in METHODS)])
        before = accuracies(runs.results("lora", shots), "before")
        after = {method: accuracies(runs.results(method, shots)) for method in METHODS}
        line(["all four", shown(before), *map(shown, after.values())])
        original = {method: runs.original(method, shots) for method in METHODS}
        line(["as recorded, afterwards", shown(runs.base_original()), *map(shown, original.values())])
        results = {method: runs.results(method, shots) for method in METHODS}
        line(["trained parameters", "-", *(f"{found[0]['trainable_parameters']:,}" for found in results.values())])
        line(["seconds, median", "-", *(f"{median(one['seconds'] for one in found):.1f}" for found in results.values())])
        print()
        told[str(shots)] = {"before": mean(before)} | {method: mean(values) for method, values in after.items()}
        told[str(shots)] |= {"lora_as_recorded": mean(original["lora"])}

    base = mean(runs.base_original())
    held = base >= AS_RECORDED and all(told[str(shots)]["before"] <= MOST and told[str(shots)]["lora"] >= LEAST[shots] for shots in SHOTS)
    rounded = {shots: {key: round(value, 4) for key, value in found.items()} for shots, found in told.items()}
    print(json.dumps({"example": "sensor-shift", "seeds": len(runs.seeds), "held": held, "base_as_recorded": round(base, 4)} | rounded))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
