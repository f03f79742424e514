from __future__ import annotations

import pytest
from torch import nn

from frostline.base.modules import module_at, modules_of
from tests.models import tiny


def test_modules_are_those_that_torch_finds_in_its_order() -> None:
    model = tiny("bert")
    assert modules_of(model) == list(model.modules())
    shared = nn.Linear(1, 1)
    odd = nn.ModuleList([nn.Sequential(shared), shared])
    odd.register_module("missing", None)
    assert modules_of(odd) == list(odd.modules())


def test_a_module_by_its_path() -> None:
    model = tiny("bert")
    assert all(module_at(model, path) is module for path, module in model.named_modules())
    with pytest.raises(KeyError):
        module_at(model, "bert.nothing")
