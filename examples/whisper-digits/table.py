"""Prints what the runs in a folder came to: a table, and the main figures as one JSON line. Ends with 1 when they are worse than promised."""

import json
import sys
from pathlib import Path
from statistics import mean

TEXTS = 44
# Trained on, and tested on.
WAYS = [("carlo", "menardi"), ("menardi", "carlo")]
ROWS = {
    "both": "LoRA, conv1 + conv2 + q + v",
    "attention": "LoRA, q + v",
    "linear": "LoRA, all linear layers",
    "convolutions": "LoRA, conv1 + conv2",
    "biases": "biases alone",
    "full": "all weights",
}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def spread(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(mean(values))} ({low} to {high})" if low != high else low


def cells(evaluations: list[dict]) -> list[str]:
    return [
        spread([one["exact_texts"] for one in evaluations], "{:g}"),
        spread([100 * one["wer"] for one in evaluations], "{:.1f}"),
        spread([100 * one["cer"] for one in evaluations], "{:.1f}"),
    ]


def line(*columns: object):
    print("| " + " | ".join(map(str, columns)) + " |")


def main(folder: Path) -> int:
    before = {test: read(folder / f"before.{test}.json") for _, test in WAYS}
    found = {}
    for name in ROWS:
        for train, test in WAYS:
            paths = sorted(folder.glob(f"{name}.{train}.*.{test}.json"))
            found[name, test] = [(read(path), folder / path.name.removesuffix(f".{test}.json")) for path in paths]
    line("", "trained", "seconds", "seeds", *(f"{test}: {figure}" for _, test in WAYS for figure in (f"exact of {TEXTS}", "WER", "CER")))
    line("---", *["---:"] * (3 + 3 * len(WAYS)))
    line("before, 30 s window", 0, "", "", *(cell for _, test in WAYS for cell in cells([before[test]])))
    for name, title in ROWS.items():
        runs = [run for _, test in WAYS for _, run in found[name, test]]
        parameters = {read(run / "result.json")["trainable_parameters"] for run in runs}
        # A run that was interrupted and resumed by hand has no time of its own.
        seconds = [float(time.read_text()) for time in (Path(f"{run}.cpu") for run in runs) if time.exists()]
        rows = [cells([evaluation for evaluation, _ in found[name, test]]) for _, test in WAYS]
        line(title, " ".join(f"{number:,}" for number in parameters), spread(seconds, "{:.0f}") if seconds else "", len(runs) // len(WAYS), *(cell for row in rows for cell in row))

    after = [evaluation for _, test in WAYS for evaluation, _ in found["both", test]]
    summary = {
        "example": "whisper-digits",
        "texts": TEXTS,
        "seeds": len(after) // len(WAYS),
        "exact_before": mean(one["exact_texts"] for one in before.values()),
        "exact_after": mean(one["exact_texts"] for one in after),
        "wer_before": 100 * mean(one["wer"] for one in before.values()),
        "wer_after": 100 * mean(one["wer"] for one in after),
        "cer_before": 100 * mean(one["cer"] for one in before.values()),
        "cer_after": 100 * mean(one["cer"] for one in after),
    }
    held = max(one["exact_texts"] for one in before.values()) <= 3 and summary["exact_after"] >= 28 and summary["cer_after"] <= 15
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in summary.items()} | {"held": held}))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
