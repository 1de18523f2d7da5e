"""Random models and adapters, made live by PEFT and by lowrank on Burn.

Two directions: adapters that PEFT made are read here (`read`), and adapters that were attached and saved here are read by PEFT
(`attached`). The truth is PEFT's own code in double precision, its A with the base's dilation and padding mode (`repaired.py`),
and PyTorch with the weights that were merged here.
"""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file

import live_models
from chain import describe, is_convolution
from closeness import assert_same
from features import Features
from live import Live, Outcome
from live_models import Drawn
from randomise import randomise
from repaired import repair
from tally import Tally

# Float32 sums in another order, as a share of the largest value.
CLOSE = 1e-5
# Where weights of 16 bits are merged, and the merged model is run.
HALF_CLOSE = {torch.float16: 4e-3, torch.bfloat16: 4e-2}
BATCH = 100


@dataclass
class Case:
    drawn: Drawn
    folder: Path
    # Whether PEFT did all that was asked of it.
    peft_works: bool
    # Raises where lowrank did not do it.
    verify: Callable[[Outcome], None]
    # What else PEFT got done on the way, by name.
    stages: dict[str, bool]


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = CLOSE) -> bool:
    if found.shape != expected.shape:
        return False
    gap = (found.double() - expected.double()).abs().max().item()
    return gap <= tolerance * expected.double().abs().max().item()


def assert_close(what: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float = CLOSE):
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    gap = (found.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    assert gap <= tolerance * scale, f"{what}: off by {gap:.3g}, values up to {scale:.3g}"


@torch.no_grad()
def forward(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """In double precision."""
    return copy.deepcopy(model).double()(x.double() if x.is_floating_point() else x)


def attempt(work: Callable):
    """The result, or None where PEFT fails, whatever it says."""
    try:
        return work()
    except Exception:
        return None


def with_weights(drawn: Drawn, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output of the base model with other weights."""
    model = copy.deepcopy(drawn.base).double()
    model.load_state_dict({name: value.double() for name, value in state.items()})
    return forward(model, drawn.x)


def write(drawn: Drawn, folder: Path, more: dict):
    """The folder in the form of a golden case."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in drawn.base.state_dict().items()}, folder / "base.safetensors")
    x = drawn.x.float() if drawn.x.is_floating_point() else drawn.x
    save_file({"x": x.contiguous()}, folder / "io.safetensors")
    modules = [{"path": path} | describe(drawn.layer(path)) for path in drawn.base.paths]
    dtype = str(next(drawn.base.parameters()).dtype).removeprefix("torch.")
    record = {"name": folder.name, "dtype": dtype, "modules": modules, "adapter": "adapter", "adapter_name": "default"}
    (folder / "case.json").write_text(json.dumps(record | more))


class Verdict:
    """How far PEFT comes with an adapted model: it runs, it merges, and the two are the same function, which is the right one."""

    def __init__(self, drawn: Drawn, model: peft.PeftModel | None, names: list[str]):
        self.built = model is not None
        self.y = self.merged = self.y_merged = None
        if model is not None:
            self.y = attempt(lambda: forward(model.get_base_model(), drawn.x))
            # In double precision: in 16 bits PEFT rounds on the way, once or several times.
            double = copy.deepcopy(model).double()
            merged = attempt(lambda: double.merge_and_unload(adapter_names=names))
            if merged is not None:
                self.y_merged, self.merged = attempt(lambda: forward(merged, drawn.x)), merged.state_dict()

    @property
    def same(self) -> bool:
        return self.y is not None and self.y_merged is not None and close(self.y, self.y_merged)


# Adapters that PEFT made, read here.


def read(rng: random.Random, folder: Path) -> Case:
    drawn = live_models.draw(rng)
    names = rng.choice([["default"]] * 6 + [["voice"], ["v2_b-1"], ["default", "voice"]])
    if len(names) == 1:
        live_models.surround(rng, drawn)
    stock = any(type(drawn.layer(path)).__name__ == "Conv3d" for path in drawn.targets())
    # Dropout, and an A that reaches across groups, need a drop-in layer, which Conv3d has not.
    own_group_only = stock or rng.random() < 0.5
    if not stock and rng.random() < 0.2:
        drawn.config.lora_dropout = 0.25
    drawn.base.to(rng.choice([torch.float32] * 6 + [torch.float16, torch.bfloat16]))
    if drawn.x.is_floating_point():
        drawn.x = drawn.x.to(next(drawn.base.parameters()).dtype)
    half_adapter = rng.random() < 0.3

    model = peft.get_peft_model(
        copy.deepcopy(drawn.base), copy.deepcopy(drawn.config), adapter_name=names[0], autocast_adapter_dtype=not half_adapter
    )
    for name in names[1:]:
        other = copy.deepcopy(drawn.config)
        other.lora_alpha = rng.randint(1, 16)
        model.add_adapter(name, other, autocast_adapter_dtype=not half_adapter)
    randomise(model, own_group_only)
    model.base_model.set_adapter(names)
    model.eval()
    model.save_pretrained(folder / "adapter")
    adapters = {name: "adapter" if name == "default" else f"adapter/{name}" for name in names}
    write(drawn, folder, {"adapters": adapters})

    verdict = Verdict(drawn, model, names)
    expected = forward(repair(copy.deepcopy(model).double()).get_base_model(), drawn.x)
    across = not own_group_only and drawn.groups() > 1
    drawn.features = ["PEFT's adapter, read here", *live_models.describe(drawn)]
    drawn.features += ["several adapters active"] if len(names) > 1 else []
    drawn.features += ["adapter name other than default"] if names[0] != "default" else []
    drawn.features += ["groups: A across groups, runs and is never merged"] if across else []
    right = verdict.y is not None and close(verdict.y, expected)

    def verify(outcome: Outcome):
        assert_output(drawn, outcome, expected)
        if across:
            assert outcome.merge_error and "group" in outcome.merge_error, f"merging is not refused: {outcome.merge_error}"
        else:
            assert_merged(drawn, outcome, expected)
            if verdict.y_merged is not None and close(verdict.y_merged, expected):
                base = drawn.base.state_dict()
                found, merged = (
                    {name: state[name].to(value.dtype) for name, value in base.items()} for state in (outcome.merged, verdict.merged)
                )
                assert_same(found, merged, base, close=CLOSE)
        for name, place in adapters.items():
            assert_resaved(folder / place, outcome.saved / name)
        assert_close("PEFT with what was saved here", loaded(drawn, outcome, names), expected)

    works = right and (across or verdict.same)
    return Case(drawn, folder, works, verify, {})


def assert_output(drawn: Drawn, outcome: Outcome, expected: torch.Tensor):
    """What holds whether or not there is a merged weight."""
    assert outcome.error is None, outcome.error
    assert_close("unmerged", outcome.outputs["y"], expected)
    assert_close("switched off", outcome.outputs["off"], forward(drawn.base, drawn.x))
    if "again" in outcome.outputs:
        if str(drawn.config.init_lora_weights).startswith(("pissa", "olora")):
            # Saved as the change since the start, in factors of twice the rank.
            assert_close("saved and loaded", outcome.outputs["again"], outcome.outputs["y"])
        else:
            assert torch.equal(outcome.outputs["again"], outcome.outputs["y"]), "saved and loaded, it is another function"


def assert_merged(drawn: Drawn, outcome: Outcome, expected: torch.Tensor):
    assert outcome.merge_error is None, outcome.merge_error
    dtype = next(drawn.base.parameters()).dtype
    tolerance = HALF_CLOSE.get(dtype, CLOSE)
    assert_close("merged", outcome.outputs["merged"], expected, tolerance)
    assert_close("as Burn's own layers see it", outcome.outputs["folded"], expected, tolerance)
    assert_close("PyTorch with the weights merged here", with_weights(drawn, outcome.merged), outcome.outputs["merged"])
    assert outcome.restored, "unmerging does not give the base's bits"
    assert torch.equal(outcome.outputs["unmerged"], outcome.outputs["y"]), "unmerged, it is another function"


def assert_resaved(theirs: Path, ours: Path):
    """The same keys, shapes and values, and the same configuration."""
    expected, found = load_file(theirs / "adapter_model.safetensors"), load_file(ours / "adapter_model.safetensors")
    assert found.keys() == expected.keys(), f"keys differ: {sorted(found.keys() ^ expected.keys())}"
    for key, value in expected.items():
        assert found[key].shape == value.shape and torch.equal(found[key].double(), value.double()), f"{key} differs"
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
    assert configs[0] == configs[1], f"configurations differ: {configs[0].items() ^ configs[1].items()}"


def loaded(drawn: Drawn, outcome: Outcome, names: list[str]) -> torch.Tensor:
    """The output of PEFT, repaired, with the adapters that were saved here."""
    base = copy.deepcopy(drawn.base).float()
    model = peft.PeftModel.from_pretrained(base, outcome.saved / names[0], adapter_name=names[0])
    for name in names[1:]:
        assert_all_used(model.load_adapter(outcome.saved / name, adapter_name=name))
    model.base_model.set_adapter(names)
    return forward(repair(model.eval()).get_base_model(), drawn.x)


def assert_all_used(result):
    missing = [key for key in result.missing_keys if "lora_" in key]
    assert not missing and not result.unexpected_keys, f"PEFT misses {missing}, does not know {result.unexpected_keys}"


# Adapters attached here, read by PEFT.

SETTINGS = [
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "lora_dropout",
    "bias",
    "modules_to_save",
    "init_lora_weights",
]
INITIALISATIONS = [False, True, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora", "mica"]


def attached(rng: random.Random, folder: Path) -> Case:
    drawn = live_models.draw(rng)
    live_models.surround(rng, drawn)
    mode, init = rng.choice(["per_group", "shared", "dense"]), rng.choice(INITIALISATIONS)
    layers = [drawn.layer(path) for path in drawn.targets()]
    if any(type(layer).__name__ == "Conv3d" and layer.groups > 1 for layer in layers) and mode == "dense":
        # Needs a drop-in layer, which Conv3d has not.
        mode = "per_group"
    if mode == "shared":
        drawn.config.rank_pattern = {}
        drawn.config.r = rng.randint(1, 8)
    if init not in (False, True, "gaussian"):
        init = decomposable(drawn, layers, mode, init)
    drawn.config.init_lora_weights = init
    if init not in (False, True):
        drawn.config.lora_bias = False
    if init == "mica":
        drawn.config.use_dora = False
    grouped = drawn.groups() > 1
    where = " on convolutions" if any(is_convolution(layer) for layer in layers) else ""
    drawn.features = ["attached here, read by PEFT", f"init_lora_weights={init}{where}", *live_models.describe(drawn)]
    drawn.features += [f"groups: {mode} factors"] if grouped else []
    return attach(rng, drawn, mode, folder)


def decomposable(drawn: Drawn, layers: list, mode: str, init: str) -> bool | str:
    """`init`, with ranks that every weight has, or no decomposition where there are none such."""
    step = 1 if mode == "shared" else drawn.groups()
    # Orthogonal factors are pairs of rows, of each group where groups have their own.
    step = step * 2 if init == "orthogonal" else step
    most = min(most_rank(layer, mode) for layer in layers)
    if most < step:
        return False
    drawn.config.r, drawn.config.rank_pattern = most // step * step, {}
    return init


def most_rank(layer: torch.nn.Module, mode: str) -> int:
    """The rank of the matrices that a layer's weight is taken apart into."""
    groups = getattr(layer, "groups", 1)
    rank = min(layer.weight.shape[0] // groups, layer.weight[0].numel())
    return rank if mode == "shared" else rank * groups


def attach(rng: random.Random, drawn: Drawn, mode: str, folder: Path) -> Case:
    """`group_mode` is `mode` on all of them."""
    lora = {name: getattr(drawn.config, name) for name in SETTINGS} | {"target_modules": sorted(drawn.config.target_modules)}
    write(drawn, folder, {"lora": lora | {"group_mode": mode}, "seed": rng.randrange(2**32)})

    # What PEFT makes of the same configuration.
    model = attempt(lambda: peft.get_peft_model(copy.deepcopy(drawn.base), copy.deepcopy(drawn.config)).eval())
    begins = True
    y_base = forward(drawn.base, drawn.x)
    if model is not None:
        if drawn.config.init_lora_weights is not False:
            y = attempt(lambda: forward(model.get_base_model(), drawn.x))
            begins = y is not None and close(y, y_base)
        randomise(model, False)
    verdict = Verdict(drawn, model, ["default"])

    def verify(outcome: Outcome):
        assert outcome.error is None, outcome.error
        if drawn.config.init_lora_weights is not False:
            assert_close("as attached", outcome.outputs["start"], y_base)
        across = mode == "dense" and drawn.groups() > 1
        saved = outcome.saved / "default"
        if across:
            assert outcome.merge_error and "group" in outcome.merge_error, f"merging is not refused: {outcome.merge_error}"
            expected = loaded(drawn, outcome, ["default"]) if peft_reads(saved) else outcome.outputs["y"]
            assert_output(drawn, outcome, expected)
        else:
            expected = with_weights(drawn, outcome.merged)
            assert_output(drawn, outcome, expected)
            assert_merged(drawn, outcome, expected)
        if peft_reads(saved):
            assert_close("PEFT with what was saved here", loaded(drawn, outcome, ["default"]), outcome.outputs["y"])
            assert_keys_are_pefts(drawn, saved)

    stages = {"built": verdict.built, "ran": verdict.y is not None, "merged": verdict.y_merged is not None, "the same": verdict.same}
    return Case(drawn, folder, begins and verdict.same, verify, stages)


def peft_reads(saved: Path) -> bool:
    """Whether the form is one of PEFT's: the files say so."""
    own = json.loads((saved / "adapter_config.json").read_text()).get("lowrank", {})
    return own.get("group_mode") != "shared" and own.get("dora_norm") != "exact"


def assert_keys_are_pefts(drawn: Drawn, saved: Path):
    """PEFT writes what it read under the same keys."""
    model = peft.PeftModel.from_pretrained(copy.deepcopy(drawn.base), saved)
    expected = {name: value.shape for name, value in peft.get_peft_model_state_dict(model).items()}
    found = {name: value.shape for name, value in load_file(saved / "adapter_model.safetensors").items()}
    assert found == expected, f"keys or shapes differ: {sorted(found.items() ^ expected.items())}"


# Both, in batches.


def run(tally: Tally, features: Features, live: Live, makers: list[Callable[[Path], Case]], scratch: Path) -> list[Case]:
    """Every case made, run and verified; one line for each that fails."""
    done = []
    for start in range(0, len(makers), BATCH):
        cases = [make(scratch / f"{start + number}") for number, make in enumerate(makers[start : start + BATCH])]
        live.run([case.folder for case in cases])
        for case in cases:
            name = f"live {case.folder.parent.name} {case.folder.name}: {', '.join(case.drawn.features)}"
            with tally.check(name, quiet=True) as passed:
                case.verify(live.read(case.folder))
            features.add(case.drawn.features, case.peft_works, passed.yes)
            done.append(case)
    return done


def check(tally: Tally, features: Features, live: Live, count: int, seed: int, scratch: Path):
    def maker(number: int) -> Callable[[Path], Case]:
        def make(folder: Path) -> Case:
            torch.manual_seed(seed * 1_000_003 + number)
            rng = random.Random(f"{seed} {number}")
            return read(rng, folder) if number % 2 == 0 else attached(rng, folder)

        return make

    run(tally, features, live, [maker(number) for number in range(count)], scratch / "models")
