"""Ways to make torch, transformers and PEFT say a message for real."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from tests.models import checkpoint_activations, tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def said(provoke: Callable[[], Any]) -> list[str]:
    """What was raised, warned of and logged while something ran."""
    logger, handler = logging.getLogger("transformers"), _Listening()
    logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            provoke()
        except Exception as error:  # noqa: BLE001 - whatever the message is raised with
            handler.said.append(str(error))
        finally:
            logger.removeHandler(handler)
    return [*handler.said, *(str(warning.message) for warning in heard)]


class _Listening(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _one_process() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'meet'}", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(*(shape or (2,))))


def _frozen_linear() -> nn.Linear:
    layer = nn.Linear(2, 2)
    layer.requires_grad_(False)
    return layer


def _changed_inside_a_checkpoint() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    output = checkpoint(layers, torch.ones(1, 2, requires_grad=True), use_reentrant=False)
    layers.requires_grad_(False)
    output.sum().backward()


def _groups(count: int, each: int = 1) -> SGD:
    return SGD([{"params": [_weight() for _ in range(each)]} for _ in range(count)], lr=0.1)


def _twice_in_groups() -> None:
    weight = _weight()
    SGD([{"params": [weight]}, {"params": [weight]}], lr=0.1)


def _fsdp() -> None:
    with _one_process():
        FullyShardedDataParallel(nn.Sequential(_frozen_linear(), nn.Linear(2, 2)), device_id=torch.device("cpu"))


def _ddp_frozen_later() -> None:
    with _one_process():
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        wrapped = DistributedDataParallel(model)
        model[0].requires_grad_(False)
        for _ in range(2):
            wrapped(torch.ones(1, 2)).sum().backward()


def _ddp_over_frozen() -> None:
    with _one_process():
        DistributedDataParallel(_frozen_linear())


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.layer = nn.Linear(2, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.first(values)
        for _ in range(2):
            values = cast("torch.Tensor", checkpoint(self.layer, values, use_reentrant=True))
        return values


def _ddp_ready_twice() -> None:
    with _one_process():
        wrapped = DistributedDataParallel(_Twice(), find_unused_parameters=True)
        wrapped(torch.ones(1, 2, requires_grad=True)).sum().backward()


def _half_weights() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
    weight.grad = torch.ones_like(weight)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(1))
    scaler.unscale_(SGD([weight], lr=0.1))


def _nothing_to_unscale() -> None:
    scaler = torch.amp.GradScaler("cpu")
    cast("Any", scaler.scale(_weight().sum())).backward()
    scaler.step(SGD([_weight()], lr=0.1))


def _loaded(kept: Any, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept.save_pretrained(folder)
        AutoModelForSequenceClassification.from_pretrained(folder, **options)


def _new_head() -> None:
    _loaded(cast("Any", tiny("bert")).base_model)


def _quantised() -> None:
    model: Any = tiny("bert")
    model.is_quantized = True
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, TrainingArguments(folder))


def _flag_of_a_result() -> None:
    (_weight() * 2).requires_grad = False


def _written_after_the_forward() -> None:
    weight = _weight()
    loss = (weight * weight).sum()
    with torch.no_grad():
        weight.add_(1)
    cast("Any", loss).backward()


def _stored_with_its_graph() -> None:
    stored = nn.Linear(2, 2)(torch.ones(1, 2))
    for _ in range(2):
        nn.Linear(2, 1)(stored).sum().backward()


def _stored_in_inference_mode() -> None:
    with torch.inference_mode():
        stored = torch.ones(2)
    cast("Any", (_weight() * stored).sum()).backward()


def _adapter(model: Any = None, **options: Any) -> Any:
    return get_peft_model(model or tiny("bert"), LoraConfig(**({"target_modules": ["query"]} | options)))


def _adapter_twice() -> None:
    model = tiny("bert")
    _adapter(model)
    _adapter(model)


def _wrapped_names() -> None:
    tiny("bert").load_state_dict(_adapter().state_dict())


def _mismatched() -> None:
    _loaded(tiny("bert"), num_labels=3)


# By the phrase of the message.
PROVOKED: dict[str, Callable[[], Any]] = {
    "does not require grad and does not have a grad_fn": lambda: _frozen_linear()(torch.ones(1, 2)).sum().backward(),
    "None of the inputs have requires_grad=True": lambda: checkpoint(
        nn.Linear(2, 2), torch.ones(1, 2), use_reentrant=True
    ),
    "the use_reentrant parameter should be passed explicitly": lambda: checkpoint(
        nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    ),
    "A different number of tensors was saved during the original forward and recomputation": (
        _changed_inside_a_checkpoint
    ),
    "does not support activation checkpointing": lambda: checkpoint_activations(tiny("xlm")),
    "optimizer got an empty parameter list": lambda: SGD([p for p in _frozen_linear().parameters() if p.requires_grad]),
    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group": lambda: _groups(
        1, 1
    ).load_state_dict(_groups(1, 2).state_dict()),
    "loaded state dict has a different number of parameter groups": lambda: _groups(1).load_state_dict(
        _groups(2).state_dict()
    ),
    "some parameters appear in more than one parameter group": _twice_in_groups,
    "optimizer contains a parameter group with duplicate parameters": lambda: SGD([_weight()] * 2, lr=0.1),
    "can't optimize a non-leaf Tensor": lambda: SGD([_weight() * 2], lr=0.1),
    "optimizer can only optimize Tensors": lambda: SGD(cast("Any", [["weight", _weight()]]), lr=0.1),
    "Must flatten tensors with uniform `requires_grad`": _fsdp,
    "Expected to have finished reduction in the prior iteration": _ddp_frozen_later,
    "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient": (
        _ddp_over_frozen
    ),
    "Expected to mark a variable ready only once": _ddp_ready_twice,
    "Attempting to unscale FP16 gradients": _half_weights,
    "No inf checks were recorded": _nothing_to_unscale,
    "those params were newly initialized because missing from the checkpoint": _new_head,
    "Reinit due to size mismatch": lambda: _loaded(tiny("bert"), num_labels=3, ignore_mismatched_sizes=True),
    "You set `ignore_mismatched_sizes` to `False`": _mismatched,
    "can be ignored when loading from different task/architecture": lambda: _loaded(_extra()),
    "You cannot perform fine-tuning on purely quantized models": _quantised,
    "Only Tensors of floating point and complex dtype can require gradients": lambda: nn.Parameter(
        torch.ones(2, dtype=torch.int8)
    ),
    "you can only change requires_grad flags of leaf variables": _flag_of_a_result,
    "a leaf Variable that requires grad is being used in an in-place operation": lambda: _weight().add_(1),
    "has been modified by an inplace operation": _written_after_the_forward,
    "Trying to backward through the graph a second time": _stored_with_its_graph,
    "Inference tensors cannot be saved for backward": _stored_in_inference_mode,
    "One of the differentiated Tensors does not require grad": lambda: torch.autograd.grad(
        _weight().sum(), torch.ones(2)
    ),
    "appears to not have been used in the graph": lambda: torch.autograd.grad(_weight().sum(), _weight()),
    "cannot register a hook on a tensor that doesn't require gradient": lambda: cast(
        "Any", torch.ones(2)
    ).register_hook(print),
    "Can't call numpy() on Tensor that requires grad": lambda: _weight().numpy(),
    "not found in the base model": lambda: _adapter(target_modules=["q_proj"]),
    "No modules were targeted for adaptation": lambda: _adapter(exclude_modules=["query"]),
    "You are trying to modify a model with PEFT for a second time": _adapter_twice,
    "Error(s) in loading state_dict for": _wrapped_names,
}


def _extra() -> Any:
    """A model with a tensor that its class has no place for."""
    model: Any = copy.deepcopy(tiny("bert"))
    model.register_parameter("spare", _weight())
    return model
