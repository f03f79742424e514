"""Gradients of large embedding tables, in memory that is kept from step to step.

torch makes the gradient of a table anew in each step, in a block so large that the system has to hand out and clear
each of its pages: 12,000 for 30,000 tokens of 384 values. Here the gradient of the step before is taken once more, as
soon as nobody holds it; clearing it is cheap beside that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.compat.tensors import counts_holders, holders_of

if TYPE_CHECKING:
    from torch import Tensor

    from frostline.engine.interpose import Forward

# Below so many bytes an allocator keeps a block by itself.
_LEAST_BYTES = 8 * 2**20


class Tables:
    """The embedding tables of a model that are large, train, and lie in the memory of the processor.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._forwards: dict[nn.Module, Forward] = {
            module: _forward(module, _Gradient(module))
            for module in (model.modules() if counts_holders() else ())
            if type(module) is nn.Embedding and _is_plain(module)
        }

    def forwards(self) -> dict[nn.Module, Forward]:
        """Forwards that look up as the tables do, and take gradients in memory that is kept."""
        return {module: forward for module, forward in self._forwards.items() if _pays(module)}


def _is_plain(module: nn.Embedding) -> bool:
    return not (module.sparse or module.scale_grad_by_freq or module.max_norm is not None)


def _pays(module: nn.Module) -> bool:
    weight = module.weight
    return (
        isinstance(weight, nn.Parameter)
        and weight.requires_grad
        and weight.device.type == "cpu"
        and weight.nbytes >= _LEAST_BYTES
    )


class _Gradient:
    """The gradient of one table."""

    def __init__(self, module: nn.Embedding) -> None:
        self._padding = module.padding_idx
        self._kept: Tensor | None = None
        self._alone = 0  # holders of its memory while nobody else has it

    def of(self, weight: Tensor, rows: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of the whole table.

        Args:
            weight: The table, (rows of the table, width).
            rows: Which of its rows were looked up, int64, of any shape.
            gradient: Of what was looked up, the same shape and (width,).
        """
        rows, gradient = rows.reshape(-1), gradient.reshape(-1, weight.shape[1])
        if self._padding is not None:
            gradient = gradient.masked_fill((rows == self._padding).unsqueeze(1), 0.0)
        kept = self._cleared(weight)
        kept.index_add_(0, rows, gradient.to(weight.dtype))
        return kept.view_as(kept)

    def graph_of(self, weight: Tensor, rows: Tensor, gradient: Tensor) -> Tensor:
        """The same in memory of its own, to be differentiated once more."""
        padding = -1 if self._padding is None else self._padding
        whole: Tensor = torch.ops.aten.embedding_dense_backward(gradient, rows, len(weight), padding, False)
        return whole

    def _cleared(self, weight: Tensor) -> Tensor:
        kept = self._kept
        if (
            kept is not None
            and holders_of(kept) == self._alone
            and (kept.shape, kept.dtype) == (weight.shape, weight.dtype)
        ):
            return kept.zero_()
        self._kept = kept = torch.zeros_like(weight)
        self._alone = holders_of(kept)
        return kept


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, gradient: _Gradient) -> Tensor:
        ctx.save_for_backward(weight, rows)
        ctx.gradient = gradient
        return nn.functional.embedding(rows, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, rows = ctx.saved_tensors
        kept: _Gradient = ctx.gradient
        of = kept.graph_of if torch.is_grad_enabled() else kept.of  # create_graph=True
        return of(weight, rows, gradients[0]), None, None


def _forward(module: nn.Embedding, gradient: _Gradient) -> Forward:
    original = module.forward

    def forward(rows: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return original(rows)
        looked_up: Tensor = _LookUp.apply(module.weight, rows, gradient)  # type: ignore[no-untyped-call]
        return looked_up

    return forward
