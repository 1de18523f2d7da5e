"""Make `targets.json`: what PEFT 0.21.2 (see requirements.txt) targets, for random configurations and module names.

    python make_targets.py                       # 240 configurations and 120 sets of pattern keys, into targets.json
    python make_targets.py --cases N --output F  # more, elsewhere

Seeds are fixed: a second run gives the same bytes. `models` are lists of module paths; a case gives its configuration,
the places in `models[model]` of the modules that PEFT targets (`targeted`) and those it excludes (`excluded`, by
exclude_modules or modules_to_save). `keys` gives for each path the place of the key of a rank_pattern that PEFT takes,
or null for the default.
"""

import argparse
import json
import re
import warnings
from pathlib import Path
from random import Random

from peft import LoraConfig
from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from peft.utils.other import get_pattern_key

MODELS = [
    ["encoder", "encoder.conv1", "encoder.conv2", "encoder.layers", "encoder.layer_norm"]
    + [f"encoder.layers.{i}.{n}" for i in (0, 1, 10) for n in ("self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2")]
    + ["decoder.embed_tokens", "proj_out"]
    + [f"decoder.layers.{i}.{n}" for i in (0, 1) for n in ("self_attn.q_proj", "encoder_attn.q_proj", "fc1")],
    ["conv1", "bn", "tcn", "head", "head.conv1", "overhead", "head2.fc"]
    + [f"tcn.{i}.{n}" for i in range(4) for n in ("conv1", "conv2", "down.conv1", "act")],
    ["h.0.attn.c_attn", "h.1.attn.c_attn", "transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc", "wte", "my_h.0.c_fc"]
    + [f"model.layers.{i}.experts.{j}.w1" for i in (0, 2) for j in (0, 1, 2)]
    + ["model.layers.2.layers.0.w1", "w1", "model.w1", "score", "model.score", "model.rescore", "lin0", "sub.lin0", "lin0.1"],
]

PATTERNS = [
    r".*\.(q|v)_proj", r".*conv\d+", r"(?!.*decoder).*(q_proj|fc1)", r".*(?<!encoder)_attn\.q_proj", r"conv1|head\.conv1",
    r"encoder\.layers\.(0|1)\..*", r".*\.fc[12]$", r"(?i).*\.FC1", r"tcn\.[0-2]\.(conv1|down\.conv1)", r"w1", r"^.*w1\Z",
    r"(.*)\.layers\.(\d+)\.layers\.0\.w1", r"model\.layers\.(\d)\.experts\.\1\.w1", r"[^.]+", r".+\.[^.]{2,3}", r".*(?=fc1).*",
    r"(?:[a-z_]+\.)*conv1", r"(?P<a>.*)\.lin0", r"h\.\d\.attn\.c_attn", r".*\.(?:conv1|c_attn)", r"\w*", r".{4}", r"x*",
]

PARTS = ["conv1", "conv2", "fc1", "q_proj", "layers", "w1", "lin0", "c_attn", "head", "0", "1", "score", "nothing", "onv1"]


def names(random: Random, paths: list[str]) -> list[str]:
    """Whole paths, ends of paths, single parts, and names that are nobody's."""
    chosen = []
    for _ in range(random.randint(1, 4)):
        parts = random.choice(paths).split(".")
        kind = random.randrange(4)
        if kind == 0:
            chosen.append(".".join(parts))
        elif kind == 1:
            chosen.append(".".join(parts[random.randrange(len(parts)):]))
        elif kind == 2:
            chosen.append(random.choice(PARTS))
        else:
            chosen.append(".".join(parts)[random.randrange(3):] or "nothing")
    return chosen


def configuration(random: Random, paths: list[str]) -> dict:
    config = {}
    if random.random() < 0.4:
        config["target_modules"] = random.choice(PATTERNS)
    else:
        config["target_modules"] = names(random, paths)
        if random.random() < 0.5:
            layers = [random.choice([0, 1, 2, 10]) for _ in range(random.randint(0, 3))]
            config["layers_to_transform"] = random.choice([layers, random.randrange(3)])
            if random.random() < 0.6:
                choices = ["layers", "h", "tcn", "experts", ["layers"], ["experts", "layers"], "layer.", "h|layers", "", []]
                config["layers_pattern"] = random.choice(choices)
    if random.random() < 0.3:
        config["exclude_modules"] = random.choice([random.choice(PATTERNS), names(random, paths)])
    if random.random() < 0.3:
        config["modules_to_save"] = names(random, paths) if random.random() < 0.8 else [random.choice(["head|bn", "h.", "layers.[01]"])]
    return config


def target_case(random: Random) -> dict:
    model = random.randrange(len(MODELS))
    config = configuration(random, MODELS[model])
    targeted, excluded = [], []
    peft_config = LoraConfig(**config)
    for place, path in enumerate(MODELS[model]):
        result = check_target_module_exists(peft_config, path)
        if isinstance(result, _ExcludedModule):
            excluded.append(place)
        elif result:
            targeted.append(place)
    return {"model": model, "config": config, "targeted": targeted, "excluded": excluded}


def keys_case(random: Random) -> dict:
    model = random.randrange(len(MODELS))
    keys = []
    for _ in range(random.randint(1, 4)):
        key = random.choice(names(random, MODELS[model]))
        dress = random.randrange(7)
        if dress == 1:
            key = "^" + key
        elif dress == 2:
            key = re.escape(key)
        elif dress == 3:
            key = key + "$"
        elif dress == 4:
            key = key.replace("1", r"\d", 1)
        elif dress == 5:
            key = random.choice([r"fc\d|conv1", r"(?:q|out)_proj", r".*\.w1", r"[^.]*conv.", r"(?!h)ead", r"^.*0.*", r"^conv1|fc1"])
        keys.append(key)
    keys = list(dict.fromkeys(keys))
    chosen = [get_pattern_key(keys, path) for path in MODELS[model]]
    # PEFT gives back a path that no key matches as it is, and that may be the text of a key.
    places = []
    for path, key in zip(MODELS[model], chosen):
        matched = key in keys and re.match(rf"(.*\.)?({key})$", path)
        places.append(keys.index(key) if matched else None)
    return {"model": model, "keys": keys, "chosen": places}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("targets.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    random = Random(0)
    sections = {
        "models": MODELS,
        "cases": [target_case(random) for _ in range(arguments.cases)],
        "keys": [keys_case(random) for _ in range(arguments.cases // 2)],
    }
    lines = (f'"{name}": [\n' + ",\n".join(map(json.dumps, items)) + "\n]" for name, items in sections.items())
    arguments.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
