"""A whole training step of a network in every form: forward, loss, backward, AdamW. The head is frozen in all of them."""

import tempfile
import time

import torch
from peft.utils.hotswap import hotswap_adapter
from torch import nn

from forms import Factors, TwoPath, WeightSpace, adapt, make_factors
from networks import TASKS, adapted_paths, initialise
from with_peft import Unsuitable, adapt_with_peft, config, try_peft

RANK, ALPHA = 8, 16
LEARNING_RATE = 1e-4
# PEFT keeps a second adapter under this name, to switch to, and these beside them in a mixed batch.
OTHER = "other"
MIXED = ("default", OTHER, "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class Peer:
    """A model in one form, and the optimiser of what is trainable in it."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # With the update of a tensor in one kernel; the foreach form is slower on a CPU.
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, fused=True)

    def trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.trained)


class StepWorkload:
    """The network and its batch, held once for each peer; all peers start from the same weights and factors."""

    def __init__(self, model: str, batch: int | None = None, only: str | None = None):
        torch.manual_seed(0)
        task = self.task = TASKS[model]
        self.name = model
        self.x = torch.randn(batch or task.batch, *task.input)
        self.target = task.target(self.x)
        base = self.base()
        self.factors = {path: make_factors(base.get_submodule(path), RANK, ALPHA) for path in adapted_paths(base)}
        del base
        self.marks: dict[str, str] = {}
        self.peers = {name: Peer(form) for name, form in self.forms(only)}
        if not self.peers:
            raise ValueError(f"{model} has no peer {only!r}")

    def base(self) -> nn.Module:
        """The frozen network, the same at every call."""
        torch.manual_seed(1)
        network = self.task.network().requires_grad_(False)
        initialise(network)
        return network

    def forms(self, only: str | None):
        """Names and models, built one at a time and from nothing, so that a peer alone takes no other's memory."""
        wanted = {"torch-full", "torch-peft", "torch-twopath", "torch-weight"} if only is None else {only}
        if "torch-full" in wanted:
            yield "torch-full", full(self.base())
        if "torch-peft" in wanted:
            yield "torch-peft", self.with_peft() or adapt(self.base(), TwoPath, self.factors)
        if "torch-twopath" in wanted and not self.marks:
            yield "torch-twopath", adapt(self.base(), TwoPath, self.factors)
        if "torch-weight" in wanted:
            yield "torch-weight", adapt(self.base(), WeightSpace, self.factors)

    def with_peft(self) -> nn.Module | None:
        """The network with PEFT's adapters; without them, and with a mark that says why, if PEFT cannot."""
        try:
            try_peft(self.task.network, self.factors, self.x.shape)
        except Unsuitable as reason:
            self.marks["torch-peft"] = f"two-path by hand: {reason}"
            return None
        return adapt_with_peft(self.base(), self.factors)

    def describe(self) -> dict:
        trainable = {name: peer.trainable() for name, peer in self.peers.items()}
        return {"peers": list(self.peers), "trainable": trainable, "marks": self.marks}

    def prepare(self, peer: str, mode: str):
        if mode != "step":
            raise ValueError(f"a network has no mode {mode!r}")
        return lambda: self.step(self.peers[peer])

    def step(self, peer: Peer) -> torch.Tensor:
        peer.optimizer.zero_grad(set_to_none=True)
        loss = self.task.loss(peer.model(self.x), self.target)
        loss.backward()
        peer.optimizer.step()
        return loss.detach()

    def manage(self, what: str) -> float:
        """Milliseconds of switching to another adapter, of merging one, of taking it out, of reading one into its place, or
        of a forward with one or with eight; the model is left as it was."""
        model = self.peers["torch-peft"].model
        if "torch-peft" in self.marks:
            raise ValueError(f"PEFT cannot adapt {self.name}; {self.marks['torch-peft']}")
        if OTHER not in model.peft_config:
            for name in MIXED[1:]:
                model.add_adapter(name, config(self.factors))
            self.folder = tempfile.TemporaryDirectory()
            model.save_pretrained(self.folder.name, selected_adapters=[OTHER])
            samples = max(len(self.x), len(MIXED))
            self.many = torch.randn(samples, *self.task.input)
            self.names = [MIXED[at % len(MIXED)] for at in range(samples)]
        other = f"{self.folder.name}/{OTHER}"
        before, timed, after = {
            "hotswap": (lambda: None, lambda: hotswap_adapter(model, other, "default"), lambda: None),
            "single": (model.eval, lambda: self.forward(model), model.train),
            "mixed": (model.eval, lambda: self.forward(model, adapter_names=self.names), model.train),
            "switch": (lambda: None, lambda: model.set_adapter(OTHER), lambda: model.set_adapter("default")),
            "merge": (lambda: None, model.merge_adapter, model.unmerge_adapter),
            "unmerge": (model.merge_adapter, model.unmerge_adapter, lambda: None),
        }[what]
        before()
        start = time.perf_counter()
        timed()
        elapsed = time.perf_counter() - start
        after()
        return 1e3 * elapsed

    @torch.no_grad()
    def forward(self, model: nn.Module, **options) -> float:
        return self.task.loss(model(self.many, **options), self.task.target(self.many)).item()


def full(model: nn.Module) -> nn.Module:
    """Everything trains but the head."""
    model.requires_grad_(True)
    if hasattr(model, "head"):
        model.head.requires_grad_(False)
    return model
