"""What moves although its flag is off: gradients that linger, and decay without a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostline.evidence.checks.case import Check
from frostline.evidence.checks.finding import some
from frostline.evidence.optimizers import inner_optimizer, step_of_its_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostline.evidence.checks.case import Case
    from frostline.evidence.checks.finding import Finding


def stale_grad(case: Case) -> Iterator[Finding]:
    """A frozen parameter keeps a gradient, which an optimizer applies whatever the flag says."""
    names = [name for name in case.frozen if case.parameters[name].grad is not None]
    if not names:
        return
    held = [name for name in names if id(case.parameters[name]) in case.held]
    if held:
        yield case.find(
            "stale-grad",
            "error",
            held,
            cause=f"{len(held)} frozen parameters keep a gradient and are in the optimizer, which goes on moving them "
            f"by gradient, momentum and decay: {some(held)}.",
            mend="Set their .grad to None (zeros would still decay); fl.freeze does so.",
        )
    elif case.optimizer is None:
        yield case.find(
            "stale-grad",
            "note",
            names,
            cause=f"{len(names)} frozen parameters keep a gradient, which an optimizer that holds them would still "
            f"apply: {some(names)}.",
            mend="Set their .grad to None; fl.freeze does so.",
        )


def decay_without_grad(case: Case) -> Iterator[Finding]:
    """The optimizer moves parameters that have no gradient: tried on a tensor of its own."""
    for group in case.groups:
        ids = {id(parameter) for parameter in group["params"]}
        names = [name for name in case.frozen if id(case.parameters[name]) in ids]
        if names and _moves_without_gradient(case.optimizer, group):
            yield case.find(
                "decay-without-grad",
                "error",
                names,
                cause=f"{type(case.optimizer).__name__} moves parameters that have no gradient, the frozen ones among "
                f"them: {some(names)}.",
                mend="Give the optimizer only what trains: [p for p in model.parameters() if p.requires_grad].",
            )


def _moves_without_gradient(optimizer: Any, group: dict[str, Any]) -> bool:
    """Whether one step of the same class, with the same options, changes a tensor whose gradient is None."""
    import torch

    inner = inner_optimizer(optimizer)
    tensors = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    still, moving = tensors
    still.requires_grad_(False)
    moving.grad = torch.ones(2, 2)
    options = {**group, "lr": torch.tensor(0.1) if _is_tensor(group.get("lr")) else 0.1}
    return step_of_its_kind(inner, options, tensors, {}) and not torch.equal(still, torch.ones(2, 2))


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


CHECKS = (Check("stale-grad", stale_grad), Check("decay-without-grad", decay_without_grad))
