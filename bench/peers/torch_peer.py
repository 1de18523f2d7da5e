"""The PyTorch and PEFT peers of the benchmark.

    torch_peer.py                                     serve requests: one JSON object a line in, one a line out
    torch_peer.py --memory MODEL PEER BATCH           peak memory of a training step in this fresh process

Requests, with `cmd`:
    hello                                             versions
    threads n                                         threads of PyTorch
    layer geometry rank batch length                  one convolution in every form, see layer.py
    step model batch                                  a network in every form, see step.py
    run peer mode                                     one timed call: infer or train of a layer, step of a network
    manage what                                       time of PEFT's switch, merge, unmerge, hotswap, single or mixed
    rss                                               resident memory
    drop                                              forget the layer or network
"""

import argparse
import gc
import json
import os
import platform
import re
import sys
import time

# Nothing here may reach for a model hub.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import peft
import torch

import memory
from layer import LayerWorkload
from step import StepWorkload

# OpenMP's threads spin for about 8 ms after their last work; who is timed next shall not share the cores with them.
SETTLE = 0.015


class Server:
    def __init__(self):
        self.workload: LayerWorkload | StepWorkload | None = None
        # Pairs of peer and mode that have run once.
        self.warm: set[tuple[str, str]] = set()

    def answer(self, request: dict) -> dict:
        command = request.pop("cmd")
        if command in ("run", "manage") and self.workload is None:
            raise ValueError(f"{command} before layer or step")
        if command not in ("hello", "threads", "layer", "step", "run", "manage", "rss", "drop"):
            raise ValueError(f"unknown command {command!r}")
        return getattr(self, command)(**request)

    def hello(self) -> dict:
        mkl = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
        return {
            "torch": torch.__version__.partition("+")[0],
            "peft": peft.__version__,
            "python": platform.python_version(),
            "mkl": mkl and mkl[1],
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }

    def threads(self, n: int) -> dict:
        torch.set_num_threads(n)
        return {"ok": True}

    def layer(self, geometry: dict, rank: int, batch: int, length: int) -> dict:
        self.drop()
        self.workload = LayerWorkload(geometry, rank, batch, length)
        return self.workload.describe()

    def step(self, model: str, batch: int | None = None) -> dict:
        self.drop()
        self.workload = StepWorkload(model, batch)
        return self.workload.describe()

    def run(self, peer: str, mode: str) -> dict:
        if (peer, mode) not in self.warm:
            self.workload.prepare(peer, mode)()
            self.warm.add((peer, mode))
        call = self.workload.prepare(peer, mode)
        start = time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - start
        answer = {"ms": 1e3 * elapsed}
        return answer if result is None else answer | {"loss": result.item()}

    def manage(self, what: str) -> dict:
        return {"ms": self.workload.manage(what)}

    def rss(self) -> dict:
        return memory.resident()

    def drop(self) -> dict:
        self.workload = None
        self.warm.clear()
        gc.collect()
        return {"ok": True}


def serve(requests, answers) -> None:
    server = Server()
    for line in requests:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        time.sleep(SETTLE)
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs=3, metavar=("MODEL", "PEER", "BATCH"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    if options.memory:
        model, peer, batch = options.memory
        print(json.dumps(memory.measure_step(model, peer, int(batch))))
    else:
        # What a library prints must not come between the answers.
        answers, sys.stdout = sys.stdout, sys.stderr
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
