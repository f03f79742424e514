"""Gradients of large embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from frostline.engine.interpose import interposed
from frostline.engine.kernels.embedding_gradients import Tables

if TYPE_CHECKING:
    from torch import Tensor

_ROWS, _WIDTH = 40_000, 64  # 10 MB


def _table(**options: object) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(_ROWS, _WIDTH, **options)  # type: ignore[arg-type]


def _gradient(module: nn.Embedding, rows: Tensor, tables: Tables | None = None) -> Tensor:
    """The gradient by one backward; it stays where it is."""
    module.weight.grad = None
    with interposed(tables.forwards() if tables is not None else {}):
        module(rows).square().sum().backward()
    return _of(module)


def _of(module: nn.Embedding) -> Tensor:
    assert module.weight.grad is not None
    return module.weight.grad


def _rows(seed: int) -> Tensor:
    return torch.randint(0, _ROWS, (4, 9), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("padding", [None, 0])
def test_gradients_are_those_of_the_table_step_after_step(padding: int | None) -> None:
    module = _table(padding_idx=padding)
    tables = Tables(module)
    for seed in range(3):
        rows = _rows(seed)
        rows[:, -2:] = 0
        expected = _gradient(module, rows).clone()
        assert torch.equal(_gradient(module, rows, tables), expected)


def test_memory_is_used_once_more() -> None:
    module = _table()
    tables = Tables(module)
    places = [_gradient(module, _rows(seed), tables).data_ptr() for seed in range(2)]
    assert places[0] == places[1]


def test_a_gradient_that_somebody_holds_stays_as_it_is() -> None:
    module = _table()
    tables = Tables(module)
    held = _gradient(module, _rows(0), tables)
    before = held.clone()
    assert torch.equal(_gradient(module, _rows(1), tables), _gradient(module, _rows(1)))
    assert torch.equal(held, before)


def test_gradients_add_up() -> None:
    module = _table()
    expected = _gradient(module, _rows(0)) + _gradient(module, _rows(1))
    tables = Tables(module)
    _gradient(module, _rows(2), tables)
    _gradient(module, _rows(0), tables)
    with interposed(tables.forwards()):
        module(_rows(1)).square().sum().backward()
    torch.testing.assert_close(module.weight.grad, expected)


def test_two_look_ups_in_one_graph() -> None:
    module = _table()
    one, other = _rows(0), _rows(1)
    tables = Tables(module)
    _gradient(module, _rows(2), tables)
    module.weight.grad = None
    with interposed(tables.forwards()):
        (module(one).square().sum() + module(other).square().sum()).backward()
    own = _of(module)
    torch.testing.assert_close(own, _gradient(module, one) + _gradient(module, other))


def test_what_somebody_wrote_into_it_is_cleared() -> None:
    module = _table()
    tables = Tables(module)
    _gradient(module, _rows(0), tables).add_(1.0)
    own = _gradient(module, _rows(1), tables).clone()
    assert torch.equal(own, _gradient(module, _rows(1)))


def test_second_derivatives() -> None:
    module = _table()
    rows = _rows(0)

    def penalty() -> Tensor:
        (first,) = torch.autograd.grad(module(rows).pow(3).sum(), module.weight, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), module.weight)
        return second

    expected = penalty()
    with interposed(Tables(module).forwards()):
        torch.testing.assert_close(penalty(), expected)


@pytest.mark.parametrize("options", [{"sparse": True}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_tables_that_do_more_are_left_alone(options: dict[str, object]) -> None:
    assert Tables(_table(**options)).forwards() == {}


def test_small_and_frozen_tables_are_left_alone() -> None:
    frozen = _table()
    frozen.weight.requires_grad_(False)
    assert Tables(nn.ModuleList([frozen, nn.Embedding(100, 8)])).forwards() == {}
