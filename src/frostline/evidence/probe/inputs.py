"""What is given for a step: whether it can be used at all, and on the right device."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.data import DataLoader

from frostline.anatomy.wrappers import held_by, refuse_no_module
from frostline.compat.modules import COMPILED_CHILD, NO_FORWARD
from frostline.errors import DataError, ModelError, as_given


def refuse_model(model: Any) -> None:
    """Look whether a step can be taken with a model.

    Raises:
        ModelError: If it is no module, has no values, is spread over processes, or has sparse tensors.
    """
    refuse_no_module(model)
    name = type(model).__name__
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{name} is on the meta device, so no step can be taken.\nLoad its weights.")
    if spread_over_processes(model):
        raise ModelError(
            f"The parameters of {name} are spread over processes, so no step of its own can be taken.\n"
            "Give the model from before it was wrapped."
        )
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.layout is not torch.strided:
            raise ModelError(f"{path} is a sparse tensor, which cannot be put back.\nMake it dense: to_dense().")


def spread_over_processes(model: nn.Module) -> bool:
    """Whether each process holds a part of the parameters only (FSDP, DeepSpeed, DTensor)."""
    return any(
        type(module).__name__ in {"FullyShardedDataParallel", "DeepSpeedEngine"} for module in model.modules()
    ) or any(hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") for parameter in model.parameters())


def usable_batch(model: nn.Module, batch: Any) -> Any:
    """Look at a batch, and move its tensors to the model's device.

    Args:
        model: The model.
        batch: A mapping for ``model(**batch)``; a tensor, or a tuple or list of what ``model(*batch)`` takes.

    Raises:
        DataError: If it is none of these, or empty.
    """
    if batch is None or isinstance(batch, str | bytes | int | float | np.ndarray | DataLoader | Iterator):
        mend = "Give one of its batches: next(iter(…))" if isinstance(batch, DataLoader | Iterator) else _WANTED
        raise DataError(f"The batch is {as_given(batch)}.\n{mend}.")
    if isinstance(batch, list) and batch and all(isinstance(row, Mapping) for row in batch):
        raise DataError(f"The batch is a list of {len(batch)} rows.\nCollate them into one mapping of tensors first.")
    if isinstance(batch, Mapping | list | tuple) and not len(batch):
        raise DataError(f"The batch is empty: {batch!r}.\n{_WANTED}.")
    if isinstance(batch, list | tuple) and all(isinstance(value, str | bytes | int | float) for value in batch):
        raise DataError(f"The batch is {as_given(batch)} without tensors.\n{_WANTED}.")
    if isinstance(batch, Mapping) and (strange := [key for key in batch if not isinstance(key, str)]):
        raise DataError(f"The batch has the key {strange[0]!r}, which names no argument.\n{_WANTED}.")
    for name, tensor in _tensors(batch):
        if tensor.dim() and not len(tensor):
            raise DataError(f"The batch has no rows: {name} has the shape {tuple(tensor.shape)}.\nGive a row at least.")
    return on_device(batch, next((parameter.device for parameter in model.parameters()), torch.device("cpu")))


_WANTED = "Give a mapping for model(**batch), a tensor, or a tuple of tensors"


def runs_alone(model: nn.Module) -> nn.Module:
    """The module inside wrappers that would communicate or compile, or that hold a model they do not run themselves."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif COMPILED_CHILD in dict(model.named_children()):
            model = model.get_submodule(COMPILED_CHILD)
        elif held := held_by(model):
            model = model.get_submodule(held)
        else:
            return model


def called(model: nn.Module, batch: Any) -> Any:
    """Run the forward.

    Args:
        model: The model.
        batch: A mapping for ``model(**batch)``; a tuple or list for ``model(*batch)``; or the one argument.

    Raises:
        DataError: If the forward does not take these arguments.
        ModelError: If there is none, as in a LightningModule that holds several modules.
    """
    named = dict(batch) if isinstance(batch, Mapping) else {}
    inputs = () if isinstance(batch, Mapping) else tuple(batch) if isinstance(batch, list | tuple) else (batch,)
    try:
        return model(*inputs, **named)
    except (TypeError, NotImplementedError) as error:
        if NO_FORWARD in str(error) or 'missing the required "forward"' in str(error):
            mend = "Give it one that takes the batch, or give the model inside it"
            raise ModelError(f"{type(model).__name__} has no forward, so no step can be taken.\n{mend}.") from None
        _refuse_misfit(model, inputs, named)
        raise


def _refuse_misfit(model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Say so where it was not the forward that failed, but its arguments."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # a forward that does not tell what it takes
        return
    try:
        signature.bind(*inputs, **named)
    except TypeError as error:
        given = ", ".join(named) or f"{len(inputs)} by position"
        raise DataError(
            f"The batch ({given}) does not fit the forward of {type(model).__name__}: {error}.\n"
            f"It takes: {', '.join(signature.parameters)}."
        ) from None


def on_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch to a device; those that are there stay the same objects.

    Args:
        batch: A tensor, or mappings, lists and tuples of tensors; anything else passes through.
        device: Where to.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [on_device(value, device) for value in batch]
        return tuple(moved) if isinstance(batch, tuple) else moved
    return batch


def _tensors(batch: Any) -> Iterable[tuple[str, torch.Tensor]]:
    named = batch.items() if isinstance(batch, Mapping) else enumerate(batch) if isinstance(batch, list | tuple) else ()
    found = [("it", batch)] if isinstance(batch, torch.Tensor) else named
    return ((str(name), value) for name, value in found if isinstance(value, torch.Tensor))
