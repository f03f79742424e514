"""Models with adapters of PEFT: what trains beside them, and what is saved with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some

_WITH_BACKWARD = 2  # the gradient passes through a layer's inputs, not to its frozen weights
_NEXT_TO_NOTHING = 0.05


def peft_base_trains(case: Case) -> Iterator[Finding]:
    """Weights of the base model train beside the adapters, and are not saved with them."""
    configs = _configs(case)
    if not configs:
        return
    biases = case.anatomy.kinds.get("bias", frozenset())
    biases_train = any(str(getattr(config, "bias", "none")) not in {"none", "None"} for config in configs)
    names = [
        name
        for name in case.trainable
        if name not in case.adapters and name not in case.head and not (biases_train and name in biases)
    ]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"{len(names)} weights of the base model train beside the adapters, and PEFT does not save them: "
            f"{some(names)}.",
            mend="Freeze them: fl.train_only(model, 'adapters').",
        )


def head_not_saved(case: Case) -> Iterator[Finding]:
    """The head is no part of what PEFT trains and saves."""
    if not _configs(case):
        return
    outside = [name for name in case.head if name not in case.adapters and ".original_module." not in name]
    if not outside or _adapted(case, outside):
        return
    trains = [name for name in outside if case.parameters[name].requires_grad]
    fresh = [name for name in outside if case.origin.of(name) != "pretrained"]
    if trains:
        cause = f"The head trains, but PEFT saves the adapters only: {some(trains)} will be lost."
    elif fresh:
        cause = f"The head is no part of what PEFT trains: {some(fresh)} stays as it was initialised."
    else:
        return
    yield case.find(
        "error" if trains else "warning",
        trains or fresh,
        cause=cause,
        mend="Give the configuration task_type='SEQ_CLS', or name the head in modules_to_save.",
    )


def adapters_low(case: Case) -> Iterator[Finding]:
    """Adapters sit so low that freezing what is beneath saves next to nothing."""
    layers = [unit for unit in case.anatomy.units if unit.kind == "layer"]
    low = [
        name
        for name in case.trainable
        if name in case.adapters
        and case.anatomy.unit_of[name].kind in {"embeddings", "layer"}
        and ".prompt_encoder." not in f".{name}"  # a prompt has one place only
    ]
    if not layers or not low:
        return
    lowest = next(unit for unit in case.anatomy.units if not set(low).isdisjoint(unit.parameter_names))
    beneath = layers.index(lowest) if lowest in layers else 0
    above = len(layers) - beneath
    # Costs in forwards of one layer: what is beneath runs once for all; what is above forward and backward.
    share = beneath / (beneath + _WITH_BACKWARD * above)
    if share < _NEXT_TO_NOTHING:
        saved = f"about {100 * share:.0f} %" if beneath else "nothing"
        yield case.find(
            "note",
            [name for name in low if case.anatomy.unit_of[name] is lowest],
            cause=f"The lowest adapters are in {lowest.name}: each step runs {above} of {len(layers)} layers forward "
            f"and backward, and storing what is frozen beneath saves {saved}.",
            mend="Adapt upper layers only: train --lora 'layers[-4:]', or layers_to_transform in PEFT's configuration.",
        )


def _adapted(case: Case, names: list[str]) -> bool:
    """Whether adapters were put on the head itself, which then trains through them."""
    paths = {name.rpartition(".")[0].removesuffix(".base_layer") for name in names}
    return any(getattr(case.modules.get(path), "adapter_layer_names", ()) for path in paths)


def _configs(case: Case) -> list[Any]:
    """The configurations of the adapters that PEFT put into the model."""
    found: dict[int, Any] = {}
    for module in case.model.modules():
        configs = getattr(module, "peft_config", None)
        if isinstance(configs, dict):
            found |= {id(config): config for config in cast("dict[str, Any]", configs).values()}
    return list(found.values())


CHECKS = (peft_base_trains, adapters_low, head_not_saved)
