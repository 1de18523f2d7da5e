"""A table by feature: in how many cases PEFT does what was asked of it, and in how many lowrank does."""

from collections import defaultdict


class Features:
    def __init__(self):
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(self, features: list[str], peft: bool, lowrank: bool):
        for feature in features:
            count = self.counts[feature]
            count[0] += peft
            count[1] += lowrank
            count[2] += 1

    def show(self):
        if not self.counts:
            return
        width = max(len(feature) for feature in self.counts)
        print(f"\n{'feature':{width}}  {'PEFT':>11}  {'lowrank':>11}")
        for feature, (peft, lowrank, cases) in sorted(self.counts.items(), key=lambda row: row[0].lower()):
            print(f"{feature:{width}}  {f'{peft}/{cases}':>11}  {f'{lowrank}/{cases}':>11}")
        print()
