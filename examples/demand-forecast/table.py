"""The tables of the runs in a folder, and the figures of LoRA before and after as a line of JSON: table.py RUNS

Ends with 1 when what the README promises does not hold.
"""

import json
import sys
from pathlib import Path
from statistics import mean, median

METHODS = {"lora": "LoRA, r = 8", "full": "full fine-tuning", "biases": "biases alone"}
FIGURES = {"MASE(336)": "mase.336", "MASE(48)": "mase.48", "WQL": "wql", "coverage": "coverage"}
PARTS = [(1, 8), (9, 16), (17, 24), (25, 32), (33, 40), (41, 48)]
# What the README promises of LoRA, in the mean of the seeds: MASE(336) at most, coverage of the band of 80 % between, and a share of what full fine-tuning gains.
MOST, BETWEEN, SHARE = 0.58, (0.74, 0.86), 0.85


def figures(evaluation: dict) -> dict[str, float]:
    seasons = {f"mase.{season['season']}": season["mase"] for season in evaluation["seasons"]}
    return seasons | {"wql": evaluation["wql"], "coverage": evaluation["coverage"]}


def naive(evaluation: dict, kind: str) -> dict[str, float]:
    return {f"mase.{season['season']}": season[kind] for season in evaluation["seasons"]}


def part(evaluation: dict, name: str, first: int, last: int) -> float:
    return mean(step[name] for step in evaluation["steps"][first - 1 : last])


def shown(values: list[float]) -> str:
    """The mean, and where there are several, the least and the most."""
    cells = [f"{value:.3f}".removeprefix("0") for value in (mean(values), min(values), max(values))]
    return cells[0] if len(values) == 1 else f"{cells[0]} ({cells[1]} to {cells[2]})"


def line(cells: list[str]):
    print("| " + " | ".join(cells) + " |")


def row(title: str, found: list[dict[str, float]], parameters: str = "-", seconds: str = "-"):
    cells = [shown([one[key] for one in found]) if key in found[0] else "-" for key in FIGURES.values()]
    line([title, *cells, parameters, seconds])


def by_horizon(name: str, digits: int, rows: dict[str, list[dict]]):
    print()
    line([f"{name} by steps ahead", *(f"{first}-{last}" for first, last in PARTS)])
    line(["---"] * (1 + len(PARTS)))
    for title, evaluations in rows.items():
        cells = [mean(part(one, name, *span) for one in evaluations) for span in PARTS]
        line([title, *(f"{cell:.{digits}f}".removeprefix("0") for cell in cells)])


def main() -> int:
    folder = Path(sys.argv[1])
    runs = {method: [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-*/result.json"))] for method in METHODS}
    before = runs["lora"][0]["before"]
    line(["91 daily forecasts at 18:00, 1 October to 30 December 2014", *FIGURES, "trained parameters", "seconds, median"])
    line(["---"] * (3 + len(FIGURES)))
    row("seasonal naive: last week", [naive(before, "naive")])
    row("the same, with level shift", [naive(before, "shifted")])
    row("zero-shot", [figures(before)])
    for method, title in METHODS.items():
        done = runs[method]
        seconds = median(run["seconds"] for run in done)
        row(title, [figures(run["after"]) for run in done], f"{done[0]['trainable_parameters']:,}", f"{seconds:.0f}")

    after = {METHODS[method]: [run["after"] for run in runs[method]] for method in METHODS}
    by_horizon("mase", 3, {"zero-shot": [before]} | after)
    by_horizon("coverage", 2, {"zero-shot": [before]} | after)

    mase = {method: mean(figures(run["after"])["mase.336"] for run in done) for method, done in runs.items()}
    start = figures(before)["mase.336"]
    averaged = {key: mean(figures(run["after"])[key] for run in runs["lora"]) for key in FIGURES.values()}
    share = (start - mase["lora"]) / (start - mase["full"])
    steps = [run["best_step"] for run in runs["lora"]]
    held = mase["lora"] <= MOST and BETWEEN[0] <= averaged["coverage"] <= BETWEEN[1] and share >= SHARE
    print()
    found = {"before": figures(before), "after": averaged, "share_of_full_gain": share}
    print(json.dumps({"example": "demand-forecast", "seeds": len(steps), "held": held} | found | {"steps": steps}))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
