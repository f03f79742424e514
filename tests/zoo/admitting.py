"""What the engine admits for a tiny model, and how its results compare with the plain forward's."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import frostline as fl
from frostline.engine.batch_inputs import read_call
from frostline.engine.replay.boundary import Route
from frostline.engine.runner import Runner, in_eval
from frostline.engine.selfcheck.admission import admit
from frostline.freezing.mode import frozen_modules
from frostline.store.packed import Packed
from tests.zoo.build import Specimen, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.selfcheck.result import SelfCheck

    Outcome = tuple[Tensor, list[Tensor | None]]

_NOT_TEXT = ("vision", "audio")


def call_of(model: nn.Module, batch: Mapping[str, Any]) -> Call:
    """A batch as the engine reads it; without a cache for generation, as the engine asks for none."""
    signature = inspect.signature(model.forward)
    options = {"use_cache": False} if "use_cache" in signature.parameters else {}
    return read_call(signature, (), {**batch, **options}, model.config)


def depths(anatomy: fl.ModelMap, model: nn.Module) -> list[str]:
    """Units that have layers of a text beneath them."""
    routes = {unit.name: Route.at(model, unit.name, anatomy) for unit in anatomy.units[1:]}
    towers = {path for stack in anatomy.stacks if stack.name in _NOT_TEXT for layer in stack.layers for path in layer}
    return [name for name, route in routes.items() if not towers.issuperset(route.skipped)]


def freeze_beneath(model: nn.Module, anatomy: fl.ModelMap, boundary: str | None) -> None:
    """Freeze all units beneath one, tied tensors under any of their names; nothing for None."""
    names = [unit.name for unit in anatomy.units]
    beneath = anatomy.units[: names.index(boundary)] if boundary is not None else ()
    frozen = {name for unit in beneath for name in (*unit.parameter_names, *unit.alias_names)}
    frozen.update(*(group for group in anatomy.tied if frozen.intersection(group)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


@dataclass(frozen=True)
class Survey:
    """What the engine admits for one tiny model.

    Attributes:
        specimen: The model, and the batch that it was tried on.
        anatomy: Its anatomy.
        checks: Per depth, the self-check with all beneath it frozen; under None the one with everything training.
    """

    specimen: Specimen
    anatomy: fl.ModelMap
    checks: dict[str | None, SelfCheck]

    def is_replayed(self, depth: str) -> bool:
        """Whether all layers beneath a depth are skipped; what is stored may be for a unit further down."""
        model, boundary = self.specimen.model, self.checks[depth].boundary
        if boundary is None:
            return False
        found, whole = (Route.at(model, unit, self.anatomy) for unit in (boundary, depth))
        return found.skipped == whole.skipped


def survey(model_type: str, dtype: torch.dtype = torch.float32, *, every_depth: bool = False) -> Survey:
    """Have the engine try a tiny model of a type at two depths of its text, one of them the last, or at all."""
    specimen = build(model_type)
    nn.Module.to(specimen.model, dtype)
    model = specimen.model
    anatomy = fl.ModelMap.of(model)
    call = call_of(model, specimen.batch)
    checks = {}
    names = depths(anatomy, model)
    tried = names if every_depth else sorted({*names[(len(names) - 1) // 2 :][:1], *names[-1:]}, key=names.index)
    for boundary in (None, *tried):
        freeze_beneath(model, anatomy, boundary)
        with training(model):
            checks[boundary] = admit(model, model.forward, call)
    return Survey(specimen, anatomy, checks)


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Have a model in train mode, but for what is frozen, and in eval mode again afterwards."""
    model.train()
    for module in frozen_modules(model):
        module.eval()
    try:
        yield
    finally:
        model.eval()


def outcome(model: nn.Module, run: Callable[[], Any]) -> Outcome:
    """Logits, and the gradients of all parameters that train, in eval mode."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with in_eval(model):
        logits = run().logits
        weights = torch.linspace(0.5, 1.5, logits.numel()).reshape(logits.shape)
        gradients = torch.autograd.grad((logits * weights).sum(), parameters, allow_unused=True)
    return logits.detach(), list(gradients)


def fast_outcome(model: nn.Module, call: Call, paths: FastPaths) -> Outcome:
    """The same on the fast paths, each row's stored values computed from the row alone."""
    runner = Runner(model, model.forward)
    values = stored(runner, call, paths) if paths.replay is not None else None
    return outcome(model, lambda: runner.run(call, paths, values))


def stored(runner: Runner, call: Call, paths: FastPaths) -> dict[str, Packed]:
    """What is stored of a batch's rows, found as the engine finds it: the same text once, however it is padded."""
    rows: dict[bytes, dict[str, Packed]] = {}
    digests = call.digests(whole=paths.whole)
    for row, digest in enumerate(digests):
        if digest not in rows:
            rows[digest] = runner.tap(call.select([row]), paths)
    return joined([rows[digest] for digest in digests])


def joined(rows: Sequence[Mapping[str, Packed]]) -> dict[str, Packed]:
    """Rows end to end."""
    return {
        name: Packed(torch.cat([row[name].values for row in rows]), torch.cat([row[name].lengths for row in rows]))
        for name in rows[0]
    }


def far(own: Outcome, plain: Outcome) -> tuple[float, float]:
    """Largest differences of logits and of gradients, relative to the values' size as admission does it.

    A NaN on one side only counts as infinite.
    """
    largest = max((float(value.abs().max()) for value in plain[1] if value is not None), default=0.0)
    logits = _far(own[0], plain[0], 1.0)
    gradients = [_far(one, other, 1e-3 * largest) for one, other in zip(own[1], plain[1], strict=True)]
    return logits, max(gradients, default=0.0)


def _far(one: Tensor | None, other: Tensor | None, least: float) -> float:
    if one is None or other is None:
        there = one if one is not None else other
        return 0.0 if there is None or not there.any() else float("inf")
    difference = float((one - other).abs().max())
    difference /= max(least, float(other.abs().max())) or 1.0
    return difference if difference == difference else float("inf")  # noqa: PLR0124 - NaN
