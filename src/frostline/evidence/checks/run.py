"""Running the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from frostline.anatomy.origin import Origin
from frostline.anatomy.wrappers import refuse_no_module
from frostline.evidence.checks import (
    adapters,
    batch_gradients,
    checkpointing,
    distributed,
    drift,
    flags,
    head,
    history,
    modes,
    optimizer,
    precision,
    where_and_when,
)
from frostline.evidence.checks.backward_pass import try_batch
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, Findings
from frostline.evidence.optimizers import refuse_no_optimizer
from frostline.evidence.proof.fingerprint import Fingerprint

MODULES: tuple[Any, ...] = (
    *(flags, head, modes, optimizer, drift, batch_gradients),
    *(checkpointing, where_and_when, history, precision, distributed, adapters),
)
# Every check there is under its slug, which is the function's name; the docs have a section for each.
REGISTRY: dict[str, Callable[[Case], Iterator[Finding]]] = {
    found.__name__.replace("_", "-"): found for module in MODULES for found in module.CHECKS
}


def check(
    model: nn.Module,
    optimizer: Any = None,
    batch: Any = None,
    *,
    before: Fingerprint | None = None,
    origin: Origin | None = None,
) -> Findings:
    """Look for faults of freezing: what does not train as the flags say, or trains for nothing.

    The model is not changed. With a batch, a forward and a backward really run in train mode, and some more where a
    gradient is 0 throughout; as after `frostline.probe`, all that they wrote is bit-identical to before.

    Args:
        model: The model, in wrappers or not; without a batch, on the meta device too.
        optimizer: The optimizer that is to train it.
        batch: Keyword arguments of the model's forward, labels included; or a sequence of positional ones.
        before: An earlier fingerprint of the model: what moved since is compared with the flags.
        origin: Where the parameters come from, where it is known; by default the model's checkpoint is asked.

    Returns:
        The findings, the gravest first; empty where there is nothing to say.

    Raises:
        PlanError: If the fingerprint is of another model.
        ModelError: If the model is none, or cannot run the batch.
        DataError: If the batch is empty, or is not what the forward takes.
        SettingsError: If the optimizer is none.
        Exception: Whatever the model raises on the batch; everything is put back before.
    """
    refuse_no_module(model)
    refuse_no_optimizer(optimizer)
    trial = None if batch is None else try_batch(model, batch)
    case = Case(model, optimizer, trial, before, origin, batch)
    return Findings.of(replace(found, slug=slug) for slug, look in REGISTRY.items() for found in look(case))
