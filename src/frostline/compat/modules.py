"""What torch, and PEFT upon it, keep about modules.

Torch is not imported here: modules are asked for by those who have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch import nn

# Names of the child in which a wrapper holds the model. In: all. Lost: the wrapper is taken for the model.
COMPILED_CHILD = "_orig_mod"  # of torch.compile
FSDP_CHILD = "_fsdp_wrapped_module"

# In the message of a module without a forward. In: all. Lost: torch's own message is shown.
NO_FORWARD = "_forward_unimplemented"


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """Give the dict in which a module holds its children; the public ways are slower by much.

    In: all.
    """
    return module._modules


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Give the dict in which a module holds its own parameters, to look at in every step or to replace one.

    In: all.
    """
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """Give the dict in which a module holds its own buffers, to look at in every step or to replace one.

    In: all.
    """
    return module._buffers


def are_hooked(modules: Iterable[nn.Module], is_harmless: Callable[[Callable[..., Any]], bool]) -> bool:
    """Tell whether modules have hooks that see or change what goes through them, in one loop for every step.

    In: all.

    Args:
        modules: The modules.
        is_harmless: Tells which forward hooks do not count.
    """
    for module in modules:
        if module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return True
        hooks = module._forward_hooks
        if hooks and not all(map(is_harmless, hooks.values())):
            return True
    return False


def is_compiled_in_place(module: nn.Module) -> bool:
    """Tell whether ``module.compile()`` was called.

    In: torch 2.2 and newer. Lost: the line that says that a compiled model was frozen.
    """
    return getattr(module, "_compiled_call_impl", None) is not None


def awaited_by_ddp(wrapper: Any) -> int:
    """Count the parameters whose gradients DistributedDataParallel waits for; 0 where it does not tell.

    In: all. Lost: the finding `frozen-after-ddp`.
    """
    logged: dict[str, Any] = getattr(wrapper, "_get_ddp_logging_data", dict)()
    return int(logged.get("num_parameter_tensors", 0))


def shared_by_ddp(wrapper: Any) -> list[nn.Parameter]:
    """List the parameters that DistributedDataParallel shares: without those that it was told to ignore.

    In: all. Else: all parameters.
    """
    return list(getattr(wrapper, "_module_parameters", None) or wrapper.parameters())


def flattened_by_fsdp(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """List the parameters that FSDP keeps in one flat tensor of a module; none where it is not wrapped.

    In: all, for FSDP1 with ``use_orig_params``. Lost: the finding `fsdp-mixed`.
    """
    flat = getattr(getattr(module, "_handle", None), "flat_param", None)
    return tuple(getattr(flat, "_params", None) or ())


def are_adapters_disabled(module: Any) -> bool:
    """Tell whether the adapters of a PEFT model are switched off as a whole.

    In: all. Lost: a prompt that is switched off is said to be active; layers say it themselves.
    """
    return bool(getattr(module, "_adapters_disabled", False))


def is_checkpointed_reentrantly(module: Any) -> bool:
    """Tell whether transformers runs a layer in a reentrant checkpoint.

    In: all. Lost: the finding `checkpointing-cuts-grad`, unless its warning is seen.
    """
    function: Any = getattr(module, "_gradient_checkpointing_func", None)
    return bool(getattr(function, "keywords", {}).get("use_reentrant", False))
