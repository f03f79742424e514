from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from torch import nn

from frostline.engine.selfcheck.perturbed import perturbed
from tests.models import tiny

if TYPE_CHECKING:
    from torch import Tensor


class Zeros(nn.Module):
    """A head that begins at zero, a gate, a LoRA's second factor, and weights that do not."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4, dtype=dtype)
        self.head = nn.Linear(4, 2, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.gate = nn.Parameter(torch.zeros((), dtype=dtype))
        self.small = nn.Parameter(torch.full((3,), 1e-6, dtype=dtype))
        self.one_of_many = nn.Parameter(torch.tensor([0.0, 0.0, 0.5], dtype=dtype))
        self.frozen = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=False)
        self.none = nn.Parameter(torch.zeros(0, dtype=dtype))
        self.register_buffer("counts", torch.zeros(3))


MOVED = {"head.weight", "head.bias", "gate", "small"}


def _moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_trains_and_is_almost_nothing_is_something_for_a_while(dtype: torch.dtype) -> None:
    model = Zeros(dtype)
    before = _copied(model)
    with perturbed(model):
        assert _moved(model, before) == MOVED
        for name in MOVED:
            value = model.state_dict()[name]
            assert bool((value != before[name]).all())
            assert 0 < float(value.abs().max()) < 0.3
    assert _moved(model, before) == set()


def test_afterwards_all_is_as_before() -> None:
    model = Zeros()
    before, places = _copied(model), [parameter.data_ptr() for parameter in model.parameters()]
    versions = [parameter._version for parameter in model.parameters()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    with perturbed(model):
        within = [parameter._version for parameter in model.parameters()]
    assert all(_bits(value) == _bits(before[name]) for name, value in model.state_dict().items())
    assert versions == within == [parameter._version for parameter in model.parameters()]
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def _bits(value: Tensor) -> bytes:
    return bytes(value.detach().reshape(-1).view(torch.uint8).numpy())


def test_a_negative_zero_comes_back_as_one() -> None:
    model = Zeros()
    with torch.no_grad():
        model.gate.fill_(-0.0)
    with perturbed(model):
        assert model.gate.item() != 0
    assert torch.signbit(model.gate)


def test_afterwards_all_is_as_before_if_it_fails() -> None:
    model = Zeros()
    before = _copied(model)

    def broken() -> None:
        with perturbed(model):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert _moved(model, before) == set()


def test_it_is_the_same_each_time() -> None:
    found: list[dict[str, Tensor]] = []
    for _ in range(2):
        model = Zeros()
        with perturbed(model):
            found.append(_copied(model))
        torch.rand(1)
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


def test_gradients_flow_behind_a_head_of_zeros() -> None:
    model = Zeros()

    def gradient() -> Tensor:
        output = model.head(model.layer(torch.ones(3, 4))).sum() * (1 + model.gate)
        return torch.autograd.grad(output, [model.layer.weight])[0]

    assert not gradient().any()
    with perturbed(model):
        assert gradient().any()
    assert not gradient().any()


def test_the_second_factor_of_adapters() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        adapted = peft.get_peft_model(tiny("bert"), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    before = _copied(adapted)
    assert not any(value.any() for name, value in before.items() if "lora_B" in name)
    with perturbed(adapted):
        moved = _moved(adapted, before)
    assert {name for name in before if "lora_B" in name} <= moved
    assert not any("lora_A" in name or "base_layer" in name for name in moved)
    assert _moved(adapted, before) == set()


def test_tied_and_meta_parameters() -> None:
    model = Zeros()
    model.tied = model.head.weight
    model.far = nn.Parameter(torch.zeros(2, device="meta"))
    before: dict[str, Any] = {name: value.clone() for name, value in model.state_dict().items() if name != "far"}
    with perturbed(model):
        assert model.tied is model.head.weight
        assert model.tied.any()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
