"""Looking into an optimizer: what it holds, at which rate, the one inside a wrapper, and a step of its kind."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from frostline.base.random_state import RngState
from frostline.errors import SettingsError


def is_optimizer(value: Any) -> bool:
    """Whether an object is an optimizer: it holds groups of parameters, and a state per parameter."""
    if isinstance(value, torch.optim.Optimizer):
        return True
    own = getattr(value, "__dict__", {})
    return isinstance(own.get("param_groups"), list) and isinstance(own.get("state"), dict)


def refuse_no_optimizer(optimizer: Any) -> None:
    """Look whether what was given as an optimizer is one.

    Raises:
        SettingsError: If it has no groups of parameters.
    """
    if optimizer is not None and not isinstance(getattr(optimizer, "param_groups", None), list):
        said = repr(optimizer) if isinstance(optimizer, str | int | float) else f"of type {type(optimizer).__name__}"
        raise SettingsError(f"The optimizer is {said}, which holds no parameters.\nGive a torch.optim.Optimizer.")


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer inside the wrappers of accelerate.

    Args:
        optimizer: An optimizer of torch or of its kind, wrapped or not.
    """
    while type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer
    return optimizer


def scaler_of(optimizer: Any) -> Any:
    """The gradient scaler that accelerate gave to an optimizer; None where there is none."""
    return optimizer.scaler if type(optimizer).__name__ == "AcceleratedOptimizer" else None


def held(optimizer: Any) -> Iterator[torch.Tensor]:
    """Yield the parameters that an optimizer holds, by group."""
    if optimizer is not None:
        for group in optimizer.param_groups:
            yield from group["params"]


def learning_rates(optimizer: Any) -> dict[int, float]:
    """Per parameter of an optimizer, by id, its learning rate now; 0 for a group that states none."""
    if optimizer is None:
        return {}
    return {
        id(parameter): float(group.get("lr") or 0.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def needs_closure(optimizer: Any) -> bool:
    """Whether an optimizer cannot step without a function that computes the loss again, as L-BFGS."""
    try:
        closure = inspect.signature(optimizer.step).parameters.get("closure")
    except (TypeError, ValueError):  # a step that does not tell what it takes
        return False
    return closure is not None and closure.default is inspect.Parameter.empty


def step_of_its_kind(
    optimizer: Any, options: dict[str, Any], tensors: Sequence[torch.Tensor], state: dict[torch.Tensor, Any]
) -> bool:
    """Take one step of an optimizer's class on other tensors; the optimizer itself and the random numbers stay.

    Args:
        optimizer: The optimizer.
        options: The options of the group.
        tensors: What the step is taken on; they have the gradients that they are to have.
        state: Their state, to begin with.

    Returns:
        Whether the step could be taken.
    """
    twin = object.__new__(type(optimizer))
    # Schedulers put their own step on an optimizer, and users their hooks: neither must run.
    left_out = {"step", "param_groups", "state"}
    own = {name: value for name, value in vars(optimizer).items() if name not in left_out and "hooks" not in name}
    if any(is_optimizer(value) for value in own.values()):
        return False  # a step would be one of the optimizer inside it, which holds the real parameters
    try:
        vars(twin).update(copy.deepcopy(own))
    except Exception:  # noqa: BLE001 - whatever cannot be copied must not be shared either
        return False
    for name, value in vars(optimizer).items():
        if "hooks" in name:
            vars(twin)[name] = type(value)()
    twin.param_groups = [{**options, "params": list(tensors)}]
    twin.state = defaultdict(dict, state)
    random = RngState()
    try:
        twin.step()
    except Exception:  # noqa: BLE001 - an optimizer that needs a closure or a device cannot be tried
        return False
    finally:
        random.restore()
    return True
