"""Proof: two fingerprints and a plan, compared; a verdict per unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import refuse_no_module
from frostline.base.json import picked
from frostline.errors import DriftError, PlanError
from frostline.evidence.proof.fingerprint import Fingerprint, fingerprint
from frostline.evidence.proof.phase_proof import PhaseProof
from frostline.plan.plan import Plan

UnitVerdict = Literal["frozen", "moved", "partly moved", "unmoved", "drifted"]
Flags = Literal["start", "end", "plan"]
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TensorProof:
    """What became of one tensor.

    Attributes:
        name: Its name in the model.
        unit: The unit it is in; ``""`` for a frozen one that is no longer there.
        frozen: Whether it had to stay bit-identical.
        before: SHA-256 before, in hex digits; None where the tensor was not there.
        after: SHA-256 after, likewise.
        buffer: Whether it is a buffer; one that may move need not, as most hold tables that never change.
    """

    name: str
    unit: str
    frozen: bool
    before: str | None
    after: str | None
    buffer: bool = False

    @property
    def moved(self) -> bool:
        """Whether a single bit, the shape or the dtype differs."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class UnitProof:
    """What became of one unit.

    Attributes:
        name: The unit.
        verdict: ``frozen``: all of it had to stay and stayed. ``moved``: all of it that may train moved.
            ``partly moved``: some of what may train moved, some did not. ``unmoved``: it may train, and
            nothing of it moved. ``drifted``: something of it moved that had to stay.
        frozen: Number of tensors that had to stay.
        moved: Number of tensors that moved.
        tensors: Number of tensors, buffers included.
    """

    name: str
    verdict: UnitVerdict
    frozen: int
    moved: int
    tensors: int


@dataclass(frozen=True, slots=True)
class Proof:
    """The comparison of a model with an earlier state of itself.

    Attributes:
        tensors: One row per tensor.
        units: One row per unit, in depth order.
        flags: What says which tensors had to stay: ``start``: what was frozen in the earlier state; ``end``: what is
            frozen in the later one, where the earlier does not tell; ``plan``: a plan, and one of these for the rest.
        thawed: Names of the tensors that were frozen in the earlier state and are not in the later one.
        newly_frozen: Names of those that were not, and are; they may have moved before they were frozen.
        seconds: Time that both fingerprints took; None where it was not measured.
        share: That time as a share of the run's; None where it was not measured.
        from_step: The optimizer step that the earlier state is of: 0, but for a run that was resumed from a checkpoint
            that does not hold the fingerprint of its start.
        guard: What a guard over the run's fast paths counted, as plain values; None where there was none.
        phases: The proof of each phase of a schedule that was run; what had to stay over the whole run was frozen in
            all of them. Empty without a schedule.
    """

    tensors: tuple[TensorProof, ...]
    units: tuple[UnitProof, ...]
    flags: Flags = "plan"
    thawed: tuple[str, ...] = ()
    newly_frozen: tuple[str, ...] = ()
    seconds: float | None = None
    share: float | None = None
    from_step: int = 0
    guard: dict[str, Any] | None = field(default=None, hash=False)
    phases: tuple[PhaseProof, ...] = ()

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the tensors that moved although they are frozen."""
        return tuple(tensor.name for tensor in self.tensors if tensor.frozen and tensor.moved)

    @property
    def drifted_while_frozen(self) -> tuple[str, ...]:
        """Names of those that are still frozen in the later state, as nobody thawed them, or moved in a phase."""
        over_all = [name for name in self.drifted if name not in self.thawed]
        return tuple(dict.fromkeys([*over_all, *(name for phase in self.phases for name in phase.drifted)]))

    @property
    def ok(self) -> bool:
        """Whether every frozen tensor stayed bit-identical, in each phase as well."""
        return not self.drifted and not any(phase.drifted for phase in self.phases)

    @property
    def cost(self) -> str:
        """What the proof took, in words; ``""`` where it was not measured."""
        if self.seconds is None:
            return ""
        share = f", {100 * self.share:.1f} % of the run" if self.share is not None else ""
        return f"{self.seconds:.2f} s{share}"

    def raise_for_drift(self) -> None:
        """Raise where a frozen tensor moved.

        Raises:
            DriftError: With this proof; its message names the tensors.
        """
        if not self.ok:
            raise DriftError(str(self), self)

    def __str__(self) -> str:
        frozen = sum(tensor.frozen for tensor in self.tensors)
        lost = [f"Drift in {phase}" for phase in self.phases if phase.drifted]
        since = f" since step {self.from_step}" if self.from_step else ""
        if self.drifted:
            gone = {tensor.name for tensor in self.tensors if tensor.after is None}
            named = ", ".join(f"{name} (gone)" if name in gone else name for name in self.drifted[:3])
            named += " …" if len(self.drifted) > 3 else ""
            said = [f"Drift: {len(self.drifted)} of {frozen} frozen tensors moved{since}: {named}", *lost]
            return "; ".join([*said, *self._on_flags()])
        free = [tensor for tensor in self.tensors if not tensor.frozen and not tensor.buffer]
        moved = sum(tensor.moved for tensor in free)
        throughout = " throughout" * bool(self.phases)
        said = [
            f"{frozen} tensors frozen{throughout} bit-identical; {moved} of {len(free)} others moved{since}"
            if frozen and throughout
            else f"{frozen} frozen tensors bit-identical; {moved} of {len(free)} others moved{since}"
            if frozen
            else f"Nothing was frozen{throughout}; {moved} of {len(free)} parameters moved{since}"
        ]
        train = {tensor.unit for tensor in free if tensor.name not in self.newly_frozen}
        still = [unit.name for unit in self.units if unit.verdict == "unmoved" and unit.name in train]
        if still:
            said.append(f"unmoved although they may train: {', '.join(still)}")
        return "; ".join([*lost, *said, *self._on_flags()])

    def _on_flags(self) -> Iterator[str]:
        """What is to be said of the flags: how they differ in the end, or that the earlier state has none."""
        if self.flags == "end":
            yield "by the flags of now, as the fingerprint has none"
        if self.thawed:
            yield f"thawed by now: {len(self.thawed)} of the frozen"
        if self.newly_frozen:
            moved = sum(tensor.moved for tensor in self.tensors if tensor.name in self.newly_frozen)
            yield f"frozen by now: {len(self.newly_frozen)} of the others, of which {moved} moved"
        held = [phase for phase in self.phases if not phase.drifted]
        if held:
            counts = ", ".join(f"{phase.number}: {phase.frozen}" for phase in held)
            yield f"frozen tensors bit-identical by phase: {counts}"

    def to_dict(self) -> dict[str, Any]:
        """The proof as plain values, as ``proof.json`` holds them."""
        return {
            "version": _VERSION,
            "ok": self.ok,
            "verdict": str(self),
            **picked(self, "seconds", "share", "from_step", "flags", "thawed", "newly_frozen", "units"),
            "tensors": {tensor.name: picked(tensor, "unit", "frozen", "before", "after") for tensor in self.tensors},
        } | (
            ({} if self.guard is None else {"guard": self.guard})
            | ({"phases": [phase.to_dict() for phase in self.phases]} if self.phases else {})
        )


def verify(before: Fingerprint, model: nn.Module, plan: Plan | None = None) -> Proof:
    """Compare a model with an earlier fingerprint of it.

    Args:
        before: The earlier state.
        model: The model now.
        plan: What had to stay: parameters, and buffers of frozen modules that it keeps in eval mode. Without a plan,
            and for what it leaves as it is, that is what was frozen when the fingerprint was taken; of a checkpoint's,
            which does not tell, what is frozen now.

    Returns:
        The proof; it is not raised, see `Proof.raise_for_drift`.

    Raises:
        ModelError: If the model is none.
        SelectorError: If the plan does not fit the model.
        PlanError: If the fingerprint is of another model.
    """
    refuse_no_module(model)
    frozen = None if plan is None else planned_names(model, plan, before.frozen)
    return compare(before, fingerprint(model), ModelMap.of(model), frozen)


def planned_names(model: nn.Module, plan: Plan, before: Collection[str] | None = None) -> frozenset[str]:
    """Names of the tensors that must not move under a plan: parameters, and buffers of modules kept in eval mode.

    Args:
        model: The model.
        plan: The plan.
        before: What was frozen of what the plan leaves as it is; by default, what is frozen now.
    """
    flags = plan.flags(model, ModelMap.of(model))
    frozen = [
        name
        for name, parameter in model.named_parameters()
        if not flags.get(name, parameter.requires_grad if before is None else name not in before)
    ]
    return frozenset(frozen) | (buffers_beside(model, frozen) if plan.frozen_mode == "eval" else frozenset())


def buffers_beside(model: nn.Module, names: Iterable[str]) -> frozenset[str]:
    """Names of the buffers of those modules whose parameters are all among some; of tied ones, any name counts."""
    ids = {id(model.get_parameter(name)) for name in names}
    found: set[str] = set()
    for path, module in model.named_modules():
        inside = [id(parameter) for parameter in module.parameters()]
        if inside and ids.issuperset(inside):
            found |= {f"{path}.{name}".lstrip(".") for name, _ in module.named_buffers()}
    return frozenset(found)


def compare(before: Fingerprint, after: Fingerprint, anatomy: ModelMap, frozen: Iterable[str] | None = None) -> Proof:
    """Compare two fingerprints of one model.

    Args:
        before: The earlier state.
        after: The later state.
        anatomy: The model's anatomy.
        frozen: Names of the tensors that had to stay; by default those that were frozen in the earlier state.

    Raises:
        PlanError: If the two have no tensor name in common.
    """
    if not set(before.digests) & set(after.digests):
        raise PlanError(
            f"The fingerprint is of another model: it shares no tensor name with this {anatomy.model_class}.\n"
            "Take it from the same model: before = fingerprint(model)."
        )
    flags: Flags = "plan" if frozen is not None else "end" if before.frozen is None else "start"
    then = (before.frozen if before.frozen is not None else after.frozen) or frozenset()
    now = after.frozen if after.frozen is not None else then
    must_stay = then if frozen is None else frozenset(frozen)
    tensors: list[TensorProof] = []
    units: list[UnitProof] = []
    for unit in anatomy.units:
        rows = [
            TensorProof(
                name,
                unit.name,
                name in must_stay,
                before.digests.get(name),
                after.digests.get(name),
                buffer=name in unit.buffer_names,
            )
            for name in (*unit.parameter_names, *unit.buffer_names)
        ]
        tensors += rows
        units.append(_unit_proof(unit.name, rows))
    names = {tensor.name for tensor in tensors}
    gone = sorted(must_stay & before.digests.keys() - after.digests.keys() - names)
    tensors += [TensorProof(name, "", frozen=True, before=before.digests[name], after=None) for name in gone]
    proof = Proof(tuple(tensors), tuple(units), flags)
    if flags == "plan":
        return proof
    return replace(proof, thawed=tuple(sorted((then & names) - now)), newly_frozen=tuple(sorted(now - then)))


def _unit_proof(name: str, rows: list[TensorProof]) -> UnitProof:
    free = [row for row in rows if not row.frozen and not row.buffer]
    moved = sum(row.moved for row in free)
    verdict: UnitVerdict
    if any(row.frozen and row.moved for row in rows):
        verdict = "drifted"
    elif not free:
        verdict = "frozen"
    elif moved == len(free):
        verdict = "moved"
    else:
        verdict = "partly moved" if moved else "unmoved"
    return UnitProof(
        name,
        verdict,
        sum(row.frozen for row in rows),
        sum(row.moved for row in rows),
        len(rows),
    )
