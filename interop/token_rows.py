"""`trainable_token_indices`, in both directions: rows that PEFT trained are merged by lowrank to PEFT's weights, and PEFT loads what lowrank wrote."""

import copy
import random
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import nn

from chain import TokenChain
from closeness import assert_same
from lowrank import Lowrank
from randomise import randomise
from tally import Tally


def check(tally: Tally, binary: Lowrank, seeds: int, scratch: Path):
    for seed in range(seeds):
        torch.manual_seed(seed)
        rng = random.Random(seed)
        tokens, dim = rng.randint(3, 30), rng.randint(1, 12)
        base = TokenChain([("embed_tokens", nn.Embedding(tokens, dim)), ("fc", nn.Linear(dim, 5))])
        rows = rng.sample(range(tokens), rng.randint(1, 3))
        config = peft.LoraConfig(
            r=rng.randint(1, 6),
            target_modules=["fc"],
            trainable_token_indices=rows if rng.random() < 0.5 else {"embed_tokens": rows},
            init_lora_weights=False,
        )
        with tally.check(f"token rows {seed}: {len(rows)} of {tokens}"):
            folder = scratch / f"tokens-{seed}"
            model = peft.get_peft_model(copy.deepcopy(base), config).eval()
            randomise(model, own_group_only=False)
            model.save_pretrained(folder / "adapter")
            save_file(base.state_dict(), folder / "base.safetensors")
            ids = torch.arange(tokens)[None]
            with torch.no_grad():
                expected = model(ids)
                # A conversion to the form it has already is read and written by lowrank.
                binary.convert(folder / "adapter", folder / "again", "peft")
                again = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "again").eval()
                assert torch.equal(again(ids), expected), "PEFT runs what lowrank wrote to another output"
            found = binary.merge(folder / "base.safetensors", folder / "adapter", folder / "merged.safetensors")
            assert_same(found, model.merge_and_unload().state_dict(), base.state_dict())
