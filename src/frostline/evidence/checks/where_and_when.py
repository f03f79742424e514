"""Where and when what trains was settled: below frozen layers, under another name, after the model was changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from frostline.anatomy.wrappers import unwrap
from frostline.base.modules import beginnings
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.freezing.freeze import frozen_when_compiled
from frostline.freezing.mode import is_pinned


def tied_conflict(case: Case) -> Iterator[Finding]:
    """Two parameters share their memory, and only one of them is frozen."""
    places: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, parameter in case.parameters.items():
        if parameter.device.type != "meta" and parameter.numel():
            places[parameter.device, parameter.data_ptr(), parameter.shape].append(name)
    for names in places.values():
        frozen = [name for name in names if name in case.frozen]
        trainable = [name for name in names if name not in frozen]
        if frozen and trainable:
            yield case.find(
                "error",
                names,
                cause=f"{frozen[0]} is frozen and shares its memory with {trainable[0]}, which trains: both move.",
                mend="Freeze both or none, and tie them as one parameter (model.tie_weights()).",
            )


def trains_below_frozen(case: Case) -> Iterator[Finding]:
    """Something trains beneath whole frozen layers, which then still take part in the backward pass."""
    if case.adapters:  # they are put where they are on purpose
        return
    below: set[str] = set()
    found: list[str] = []
    for unit in case.anatomy.units:
        if unit.kind not in {"embeddings", "layer"} or not unit.parameter_names:
            continue
        if any(case.parameters[name].requires_grad for name in unit.parameter_names):
            below.add(unit.stack)
        elif unit.kind == "layer" and unit.stack in below:
            found += unit.parameter_names
    if found:
        units = [unit.name for unit in case.units_of(found)]
        yield case.find(
            "note",
            found,
            cause=f"Frozen layers lie above what trains ({some(units)}): the gradient still passes through them, so "
            "freezing them saves little time.",
            mend=f"Freeze from the bottom, such as 'embeddings, layers[:{len(units)}]', to save the backward pass.",
        )


def resize_unfroze(case: Case) -> Iterator[Finding]:
    """Embeddings train inside a module that fl.freeze froze: they were replaced since."""
    core = unwrap(case.model).core
    tables = [
        module
        for give in ("get_input_embeddings", "get_output_embeddings")
        if (module := _given(core, give)) is not None
    ]
    inside = {id(parameter) for module in tables for parameter in module.parameters()}
    names = [name for name in case.trainable if id(case.parameters[name]) in inside and _under_pin(case, name)]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"{some(names)} trains inside a module that was frozen: the table was replaced after fl.freeze, and "
            "the new parameter trains.",
            mend="Call fl.freeze again after the embeddings are replaced, and build the optimizer after that.",
        )


def compiled_before_freeze(case: Case) -> Iterator[Finding]:
    """A plan changed flags after the model was compiled."""
    names = frozen_when_compiled(case.model)
    if names:
        yield case.find(
            "note",
            names,
            cause=f"{len(names)} flags were changed after torch.compile: a graph that was compiled before does not "
            "serve any more, and the next forward compiles again.",
            mend="Freeze first, then compile.",
        )


def _given(core: object, name: str) -> torch.nn.Module | None:
    give = getattr(core, name, None)
    try:
        module = give() if callable(give) else None
    except (NotImplementedError, AttributeError):  # what a model without such a table raises
        return None
    return module if isinstance(module, torch.nn.Module) else None


def _under_pin(case: Case, name: str) -> bool:
    """Whether a module above a parameter is still kept in eval mode by fl.freeze."""
    return any(is_pinned(case.modules[path]) for path in beginnings(name.rpartition(".")[0]))


CHECKS = (tied_conflict, trains_below_frozen, resize_unfroze, compiled_before_freeze)
