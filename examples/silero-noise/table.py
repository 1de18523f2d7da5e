"""The tables of the runs in a folder, and the figures of LoRA before and after as a line of JSON.

    table.py RUNS

Ends with 1 when what the README promises does not hold.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, median

CONDITIONS = ["clean", "10dB", "5dB", "0dB", "-5dB"]
METHODS = {"lora": "LoRA on conv1 to conv4", "biases": "biases alone", "full": "full fine-tuning"}
# What the README promises of LoRA, in the mean of the seeds: F1 at least, and alarms on each track of music at most.
LEAST, MOST = {"clean": 0.975, "-5dB": 0.84}, 0.05


def figures(evaluation: dict) -> dict[str, dict]:
    """The figures of every recording, by name."""
    return {Path(one["path"]).stem: one for one in evaluation["recordings"]}


def voices(found: dict[str, dict]) -> list[str]:
    return [name.removesuffix("_clean") for name in found if name.endswith("_clean")]


def tracks(found: dict[str, dict]) -> list[str]:
    return [name for name in found if name.startswith("music_")]


def summary(found: dict[str, dict]) -> dict[str, float]:
    """F1 and area under the curve by condition, the mean of the voices, and false alarms on each track of music."""
    table = {f"{key} {at}": mean(found[f"{voice}_{at}"][key] for voice in voices(found)) for key in ("f1", "auc") for at in CONDITIONS}
    return table | {f"alarms {track}": found[track]["false_alarm_rate"] for track in tracks(found)}


def spread(values: list[float]) -> str:
    shown = [f"{value:.3f}".removeprefix("0") for value in (mean(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def line(cells: list[str]):
    print("| " + " | ".join(cells) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    folder = parser.parse_args().runs
    runs = {method: [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-*/result.json"))] for method in METHODS}
    before = figures(runs["lora"][0]["before"])
    rows = {"pretrained": [summary(before)]} | {
        title: [summary(figures(run["after"])) for run in runs[method]] for method, title in METHODS.items() if runs[method]
    }
    for key, title in (("f1", "F1, mean of the voices"), ("auc", "area under the curve, mean of the voices")):
        print(f"\n{title}\n")
        line(["", *CONDITIONS])
        line(["---"] * (len(CONDITIONS) + 1))
        for name, tables in rows.items():
            line([name, *(spread([table[f"{key} {at}"] for table in tables]) for at in CONDITIONS)])
    print("\nfalse alarms on music alone, and the cost\n")
    names = tracks(before)
    line(["", *(name.removeprefix("music_") for name in names), "parameters", "seconds, median"])
    line(["---"] * (len(names) + 3))
    for name, tables in rows.items():
        own = next((runs[method] for method, title in METHODS.items() if title == name), [])
        cost = [f"{own[0]['trainable_parameters']:,}", f"{median(run['seconds'] for run in own):.0f}"] if own else ["-", "-"]
        line([name, *(spread([table[f"alarms {track}"] for table in tables]) for track in names), *cost])
    after = [figures(run["after"]) for run in runs["lora"]]
    for key, title in (("f1", "F1"), ("auc", "area under the curve")):
        print(f"\n{title} by voice\n")
        line(["", "", *CONDITIONS])
        line(["---"] * (len(CONDITIONS) + 2))
        for voice in voices(before):
            for name, found in (("pretrained", [before]), (METHODS["lora"], after)):
                line([voice, name, *(spread([one[f"{voice}_{at}"][key] for one in found]) for at in CONDITIONS)])
    after = [summary(one) for one in after]
    told = {key: {"before": round(value, 4), "after": round(mean(table[key] for table in after), 4)} for key, value in summary(before).items()}
    held = all(told[f"f1 {at}"]["after"] >= least for at, least in LEAST.items()) and all(told[f"alarms {track}"]["after"] <= MOST for track in names)
    print("\n" + json.dumps({"example": "silero-noise", "seeds": len(after), "held": held} | told))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
