"""Every committed golden adapter: lowrank's merge gives the weights that were recorded, or refuses where none exist."""

import json
from pathlib import Path

from safetensors.torch import load_file

from closeness import assert_same
from lowrank import Lowrank, Refused
from tally import Tally


def check(tally: Tally, binary: Lowrank, folder: Path, scratch: Path):
    for path in sorted(folder.iterdir()):
        case = json.loads((path / "case.json").read_text())
        output = scratch / f"{case['name']}.safetensors"
        if case["merged_by"]:
            with tally.check(f"golden {case['name']}: merges as {case['merged_by']}"):
                found = binary.merge(path / "base.safetensors", path / case["adapter"], output)
                tensors = load_file(path / "io.safetensors")
                expected = {name.removeprefix("merged."): tensor for name, tensor in tensors.items() if name.startswith("merged.")}
                rounded = {f"{row['path']}.weight" for row in case["modules"] if row.get("delta_rounded")}
                assert_same(found, expected, load_file(path / "base.safetensors"), rounded)
        else:
            with tally.check(f"golden {case['name']}: merge is refused"):
                assert_refused(binary, path, case, output, "group")


def assert_refused(binary: Lowrank, path: Path, case: dict, output: Path, reason: str):
    try:
        binary.merge(path / "base.safetensors", path / case["adapter"], output)
    except Refused as error:
        assert reason in str(error), f"refused for another reason: {error}"
        assert not output.exists(), "refused, and wrote a file all the same"
    else:
        raise AssertionError(f"merged what has to be refused for its {reason}")
