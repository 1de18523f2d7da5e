"""When a merged weight is the same as PEFT's."""

import torch

# float32: the two sum the same products in another order.
F32 = 1e-6
# 16-bit floats, as integers whose order is the order of the numbers: neighbours differ by one.
HALF = (torch.float16, torch.bfloat16)


def ordered(tensor: torch.Tensor) -> torch.Tensor:
    bits = tensor.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def step(tensor: torch.Tensor) -> torch.Tensor:
    """The distance from each 16-bit number to the next larger one in size."""
    size = tensor.abs().contiguous()
    following = (size.view(torch.int16) + 1).view(tensor.dtype)
    return following.double() - size.double()


def compare(name: str, found: torch.Tensor, expected: torch.Tensor, base: torch.Tensor, delta_rounded: bool, close: float):
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    assert found.dtype == expected.dtype, f"{name}: {found.dtype}, expected {expected.dtype}"
    if not expected.is_floating_point():
        assert torch.equal(found, expected), f"{name}: differs"
        return
    gap = (found.double() - expected.double()).abs()
    scale = expected.double().abs().max().item()
    allowed = torch.full_like(gap, close * scale)
    if expected.dtype in HALF:
        one_apart = (ordered(found) - ordered(expected)).abs() <= 1
        allowed = torch.where(one_apart, gap, allowed)
        if delta_rounded:
            # Rounded before it was added: a step at the size of the larger term is left open.
            update = (expected.double() - base.double()).to(expected.dtype)
            allowed = torch.maximum(allowed, torch.maximum(step(update), step(base)))
    worst = (gap - allowed).max().item()
    assert worst <= 0, f"{name}: off by {gap.max().item():.3g}, weights up to {scale:.3g}"


def assert_same(found: dict, expected: dict, base: dict, delta_rounded: set[str] = frozenset(), close: float = F32):
    """All tensors of a merged model. `base` is the model before, `delta_rounded` names the weights whose update PEFT rounds before it adds it."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not extra, f"missing tensors {sorted(missing)}, extra tensors {sorted(extra)}"
    assert any(not torch.equal(expected[name], base[name]) for name in expected), "the adapter changes nothing: a test of nothing"
    for name, tensor in expected.items():
        compare(name, found[name], tensor, base[name], name in delta_rounded, close)
