"""What the checks look at: a model, and what was given beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from frostline.anatomy.modelmap import ModelMap, Unit
from frostline.anatomy.origin import Origin, origin_of
from frostline.evidence.checks.backward_pass import Trial
from frostline.evidence.checks.findings import Finding, Severity
from frostline.evidence.proof.fingerprint import Fingerprint
from frostline.evidence.proof.proof import Proof, verify


@dataclass(frozen=True)
class Case:
    """A model to be checked.

    Attributes:
        model: The model, wrappers included.
        optimizer: Its optimizer, if given.
        trial: What a real forward and backward gave, if there was a batch.
        before: An earlier fingerprint of the model, if given.
        known_origin: Where the parameters come from, if the caller knows.
        batch: The batch of the trial.
    """

    model: nn.Module
    optimizer: Any = None
    trial: Trial | None = None
    before: Fingerprint | None = None
    known_origin: Origin | None = None
    batch: Any = None

    @cached_property
    def anatomy(self) -> ModelMap:
        """The model's anatomy."""
        return ModelMap.of(self.model)

    @cached_property
    def origin(self) -> Origin:
        """Where the parameters come from."""
        return origin_of(self.model) if self.known_origin is None else self.known_origin

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by name; a tied one under its first name."""
        return dict(self.model.named_parameters())

    @cached_property
    def trainable(self) -> tuple[str, ...]:
        """Names of the parameters whose flag is on."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.requires_grad)

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parameters whose flag is off."""
        return tuple(name for name, parameter in self.parameters.items() if not parameter.requires_grad)

    @cached_property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the head."""
        return tuple(name for unit in self.anatomy.units if unit.kind == "head" for name in unit.parameter_names)

    @cached_property
    def adapters(self) -> frozenset[str]:
        """Names of the parameters that adapters added."""
        return self.anatomy.kinds.get("adapters", frozenset())

    @cached_property
    def proof(self) -> Proof | None:
        """What moved since the earlier fingerprint; None without one."""
        return None if self.before is None else verify(self.before, self.model)

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules by path."""
        return dict(self.model.named_modules())

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups; none without an optimizer."""
        return [] if self.optimizer is None else list(self.optimizer.param_groups)

    @cached_property
    def held(self) -> frozenset[int]:
        """Ids of the tensors that the optimizer holds."""
        return frozenset(id(parameter) for group in self.groups for parameter in group["params"])

    def in_group(self, group: dict[str, Any], names: Iterable[str]) -> list[str]:
        """Those of some parameters that a group of the optimizer holds."""
        ids = {id(parameter) for parameter in group["params"]}
        return [name for name in names if id(self.parameters[name]) in ids]

    def units_of(self, names: Iterable[str]) -> tuple[Unit, ...]:
        """The units of some parameters, buffers or modules, in depth order."""
        wanted = tuple(names)
        exact = {unit.name for name in wanted if (unit := self.anatomy.unit_of.get(name)) is not None}
        paths = tuple(f"{name}." for name in wanted if name not in self.anatomy.unit_of and name)
        return tuple(
            unit
            for unit in self.anatomy.units
            if unit.name in exact
            or (paths and any(name.startswith(paths) for name in (*unit.parameter_names, *unit.buffer_names)))
        )

    def find(self, severity: Severity, names: Iterable[str], *, cause: str, mend: str) -> Finding:
        """Make a finding; its units are those of the names, its slug is given by the check."""
        wanted = tuple(names)
        return Finding("", severity, tuple(unit.name for unit in self.units_of(wanted)), wanted, cause, mend)
