"""Wrappers for several processes, which note what trains when they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch.nn.parallel import DistributedDataParallel

from frostline.compat.modules import awaited_by_ddp, flattened_by_fsdp, shared_by_ddp
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some


def frozen_after_ddp(case: Case) -> Iterator[Finding]:
    """Flags changed after the model was wrapped in DistributedDataParallel."""
    for path, wrapper in _wrappers(case):
        noted = awaited_by_ddp(wrapper)
        trains = sum(parameter.requires_grad for parameter in shared_by_ddp(wrapper))
        if noted and noted != trains:
            names = [name for name in case.frozen if name.startswith(f"{path}.".lstrip("."))]
            what = "waits for gradients that no longer come" if noted > trains else "leaves new gradients unshared"
            yield case.find(
                "error",
                names if noted > trains else [],
                cause=f"DistributedDataParallel was made when {noted} parameters trained; now {trains} do. It {what}.",
                mend="Freeze first, then wrap; after a change of flags, wrap the inner model anew.",
            )


def ddp_unused(case: Case) -> Iterator[Finding]:
    """Trainable parameters get no gradient, and DistributedDataParallel waits for it."""
    if case.trial is None:
        return
    for path, wrapper in _wrappers(case):
        if wrapper.find_unused_parameters or wrapper.static_graph:
            continue
        names = [
            name for name in case.trainable if name.startswith(f"{path}.".lstrip(".")) and name not in case.trial.finite
        ]
        if names:
            yield case.find(
                "error",
                names,
                cause=f"DistributedDataParallel waits for gradients of {len(names)} parameters that have no part in "
                f"the loss, and fails in the second step: {some(names)}.",
                mend="Freeze them before wrapping, or wrap with find_unused_parameters=True.",
            )


def fsdp_mixed(case: Case) -> Iterator[Finding]:
    """Frozen and trainable parameters lie in one flat tensor of FSDP."""
    for path, module in case.modules.items():
        flags = {parameter.requires_grad for parameter in flattened_by_fsdp(module)}
        if len(flags) == 2:
            yield case.find(
                "warning",
                [path],
                cause=f"FSDP keeps frozen and trainable parameters of {path or type(module).__name__} in one flat "
                "tensor, so that gradients are kept and reduced for the frozen ones too.",
                mend="Wrap so that each unit is frozen or trains as a whole (an auto_wrap_policy per layer), or use "
                "FSDP2 (fully_shard).",
            )


def _wrappers(case: Case) -> Iterator[tuple[str, Any]]:
    for path, module in case.modules.items():
        if isinstance(module, DistributedDataParallel):
            yield path, cast("Any", module)


CHECKS = (frozen_after_ddp, ddp_unused, fsdp_mixed)
