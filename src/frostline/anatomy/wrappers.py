"""Looking through what is wrapped around a model: parallelism, compilation, adapters, a module that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from frostline.base.dtypes import can_have_gradient
from frostline.compat.modules import COMPILED_CHILD, FSDP_CHILD, are_adapters_disabled
from frostline.errors import ModelError, as_given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """The model inside its wrappers.

    Attributes:
        core: The model itself.
        prefix: What its parameter names begin with in the outermost module: ``""``, ``"module."``,
            ``"base_model.model."`` …
        wrappers: Class names of the wrappers, from the outermost on.
    """

    core: nn.Module
    prefix: str
    wrappers: tuple[str, ...]


def refuse_no_module(model: Any) -> None:
    """Look whether what was given as a model is one.

    Raises:
        ModelError: If it is no module of torch.
    """
    from torch import nn

    if not isinstance(model, nn.Module):
        mend = "Load it first, by from_pretrained" if isinstance(model, str | PathLike) else "Give a torch.nn.Module"
        raise ModelError(f"The model is {as_given(model)}.\n{mend}.")


def unwrap(model: nn.Module) -> Unwrapped:
    """Look through wrappers for distributed training, ``torch.compile`` and PEFT, and modules that hold a model.

    Args:
        model: The outermost module.

    Raises:
        ModelError: If it is no module.
    """
    refuse_no_module(model)
    core, prefix, wrappers = model, "", []
    while (inner := _inner(core)) is not None:
        wrappers.append(type(core).__name__)
        core, prefix = core.get_submodule(inner), f"{prefix}{inner}."
    return Unwrapped(core, prefix, tuple(wrappers))


def _inner(module: nn.Module) -> str | None:
    """Path of the model right inside a wrapper or a module that holds it; None for a module that is neither."""
    return _wrapped_by(module) or held_by(module)


def _wrapped_by(module: nn.Module) -> str | None:
    """Path of the model right inside a wrapper of torch or PEFT; None for a module that is none."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    children = dict(module.named_children())
    if isinstance(module, DataParallel | DistributedDataParallel):
        return "module"
    for name in (COMPILED_CHILD, FSDP_CHILD):
        if name in children:
            return name
    if "base_model" in children and hasattr(module, "peft_config"):
        # PEFT wraps twice where it changes layers (LoRA, IA3), once where it adds a prompt.
        tuner = children["base_model"]
        return (
            "base_model.model"
            if hasattr(tuner, "peft_config") and "model" in dict(tuner.named_children())
            else "base_model"
        )
    return None


def held_by(module: nn.Module) -> str | None:
    """Name of the one model that a module holds without running it in a forward of its own; None where it holds none.

    A LightningModule is such a module, whatever it holds: it trains by its ``training_step``. Of others without a
    forward, which may be mere lists of layers, only those that hold a model of transformers are.
    """
    from torch import nn

    takes_steps = hasattr(type(module), "training_step")
    if not takes_steps and type(module).forward is not nn.Module.forward:
        return None
    parts = [name for name, child in module.named_children() if next(child.parameters(), None) is not None]
    if len(parts) != 1 or next(module.parameters(recurse=False), None) is not None:
        return None
    # Told by name: transformers need not be imported for models of plain torch.
    kinds = {kind.__name__ for kind in type(module.get_submodule(parts[0])).__mro__}
    return parts[0] if takes_steps or "PreTrainedModel" in kinds else None


def adapter_parts(model: nn.Module) -> Iterator[str]:
    """Yield the paths of the modules and parameters that adapters of PEFT added to a model.

    Told by what the modules say of themselves: ``adapter_layer_names`` of a layer with adapters, the copies
    of ``modules_to_save``, and the prompt encoder beside a model. Weights of the model itself that an adapter
    merely trains (LayerNorm tuning) are kept as a copy too, and counted likewise.
    """
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name in (*getattr(module, "adapter_layer_names", ()), "modules_to_save", "prompt_encoder"):
            if name in dict(module.named_children()) or name in dict(module.named_parameters(recurse=False)):
                yield f"{prefix}{name}"


def notes_on(model: nn.Module) -> tuple[str, ...]:
    """Say in sentences what is wrapped around a model, and what state its adapters and weights are in."""
    unwrapped = unwrap(model)
    notes = []
    if unwrapped.wrappers:
        notes.append(f"Looked through {', '.join(unwrapped.wrappers)} to {type(unwrapped.core).__name__}.")
    notes += _adapter_notes(model)
    quantised = getattr(getattr(unwrapped.core, "config", None), "quantization_config", None)
    if quantised is not None:
        method = (
            quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", "")
        )
        notes.append(f"The checkpoint is quantised ({method}); sizes without its weights loaded are those before that.")
    integers = [name for name, parameter in model.named_parameters() if not can_have_gradient(parameter)]
    if integers:
        notes.append(f"{len(integers)} parameters are integers (quantised weights), which no optimizer can train.")
    return tuple(notes)


def _adapter_notes(model: nn.Module) -> Iterator[str]:
    configs: dict[str, Any] = {}
    active: set[str] = set()
    disabled = False
    layers = [cast("Any", module) for module in model.modules() if getattr(module, "adapter_layer_names", ())]
    for module in model.modules():
        found = getattr(module, "peft_config", None)
        # Older versions of PEFT leave the configurations on a model that was unloaded.
        if isinstance(found, dict) and (layers or hasattr(module, "active_adapter")):
            configs |= found
            # A prompt before the input has no layer that could say it.
            active |= {str(getattr(module, "active_adapter", ""))}
            disabled |= are_adapters_disabled(module)
    active |= {name for layer in layers for name in getattr(layer, "active_adapters", ())}
    merged = {name for layer in layers for name in getattr(layer, "merged_adapters", ())}
    disabled |= bool(layers) and all(getattr(layer, "disable_adapters", False) for layer in layers)
    for name, config in configs.items():
        kind = str(getattr(config, "peft_type", "")).removeprefix("PeftType.")
        states = [
            "merged into the weights" if name in merged else "",
            "disabled" if disabled else "",
            "not active" if name not in active else "",
        ]
        said = ", ".join(state for state in states if state)
        yield f"Adapter '{name}' ({kind}): {said or 'active'}."
