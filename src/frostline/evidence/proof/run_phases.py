"""The phases in the proof of a run, checked again from its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostline.errors import PlanError, SelectorError
from frostline.evidence.proof.proof import Proof, planned_names
from frostline.evidence.proof.run_result import METRICS_FILE, PROOF_FILE, Disagreement
from frostline.plan.plan import Plan
from frostline.plan.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel


def disagreements_on_phases(noted: Any, mode: Any, model: PreTrainedModel, proof: Proof) -> Iterator[Disagreement]:
    """Yield where the phases of a proof contradict one another, its rows, or the schedule beside them.

    Args:
        noted: The schedule in ``metrics.json``, as plain values; None where it has none.
        mode: The frozen mode of the run.
        model: The model; its values are not read.
        proof: The proof.
    """
    yield from _schedule(noted, proof)
    if proof.phases:
        yield from _phases(mode, model, proof)


def _schedule(noted: Any, proof: Proof) -> Iterator[Disagreement]:
    """Where the phases of a proof are not those of the schedule that stands beside it."""
    if noted is None:
        return
    try:
        trains = [phase.train for phase in Schedule.from_dict(noted).phases]
    except PlanError as error:
        said = str(error).splitlines()[0].rstrip(".")
        yield Disagreement(METRICS_FILE, None, f"the schedule in {METRICS_FILE} cannot be read: {said}")
        return
    if not proof.phases or any(trains[phase.number - 1 : phase.number] != [phase.train] for phase in proof.phases):
        text = f"the phases in {PROOF_FILE} are not those of the schedule in {METRICS_FILE}"
        yield Disagreement(METRICS_FILE, None, text)


def _phases(mode: Any, model: PreTrainedModel, proof: Proof) -> Iterator[Disagreement]:
    """Where the phases of a run do not follow one another, or freeze anything else throughout than the proof says."""
    frozen = {tensor.name for tensor in proof.tensors if tensor.frozen}
    try:
        planned = [planned_names(model, Plan(train_only=phase.train, frozen_mode=mode)) for phase in proof.phases]
    except (SelectorError, PlanError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        yield Disagreement(PROOF_FILE, None, f"a phase in {PROOF_FILE} does not fit: {said}")
        return
    for name in sorted(frozenset.intersection(*planned) ^ frozen):
        words = ("is frozen in all phases", "free") if name not in frozen else ("trains in a phase", "frozen")
        yield Disagreement(PROOF_FILE, name, f"{name} {words[0]} of {PROOF_FILE}; its row has it {words[1]}")
    for phase, names in zip(proof.phases, planned, strict=True):
        if phase.frozen != len(names):
            text = f"phase {phase.number} in {PROOF_FILE} has {phase.frozen} frozen tensors; its selector {len(names)}"
            yield Disagreement(PROOF_FILE, None, text)
    for one, other in zip(proof.phases, proof.phases[1:], strict=False):
        if one.to_step != other.from_step or one.number >= other.number:
            text = f"phase {other.number} in {PROOF_FILE} does not begin where phase {one.number} ends"
            yield Disagreement(PROOF_FILE, None, text)
