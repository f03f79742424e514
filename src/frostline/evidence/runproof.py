"""The proof of a training run, checked again from the files that it left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.checkpoints.classifier import load_config, skeleton
from frostline.checkpoints.places import Places
from frostline.checkpoints.source import locate
from frostline.checkpoints.stored import Checkpoint, digests_of
from frostline.errors import ModelError, PlanError, SelectorError
from frostline.evidence.fingerprint import Fingerprint
from frostline.evidence.proof import Proof, compare, planned_names
from frostline.plainjson import read_json
from frostline.plan.plan import PLAN_FILE, Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from frostline.checkpoints.stored import StoredTensor

_PROOF, _METRICS = "proof.json", "metrics.json"
_PLANNED = ("freeze", "train_only", "frozen_mode")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two files that do not agree.

    Attributes:
        file: What disagrees with the proof: ``weights``, ``base``, ``plan.json``, ``metrics.json``; or ``proof.json``
            with itself.
        name: The tensor; None where it is about the file as a whole.
        text: What is wrong, in one sentence.
    """

    file: str
    name: str | None
    text: str

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """The disagreement as plain values."""
        return {"file": self.file, "name": self.name, "text": self.text}


@dataclass(frozen=True, slots=True)
class RunProof:
    """The proof of a run, and whether the files bear it out.

    Attributes:
        folder: The run's folder.
        base: The checkpoint that it started from; None where none is known.
        proof: The proof, drawn up anew from the digests in ``proof.json``.
        disagreements: Where the files contradict it.
        hashed: Number of tensors of the folder whose digest is the one of the proof.
        from_base: Number of tensors whose digest before training is that of the base.
        unverified: Per tensor that the files tell nothing of, why.
    """

    folder: str
    base: str | None
    proof: Proof
    disagreements: tuple[Disagreement, ...]
    hashed: int
    from_base: int
    unverified: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether no frozen tensor moved, and all files agree."""
        return self.proof.ok and not self.disagreements

    def __str__(self) -> str:
        lines = [f"Proof: {self.proof}."]
        lines += [f"Disagreement: {disagreement}." for disagreement in self.disagreements]
        base = f"{self.from_base} began as they are in {self.base}" if self.base else "no base is known to compare with"
        lines.append(f"{self.hashed} tensors are as the proof says; {base}.")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.unverified.items():
            reasons.setdefault(reason, []).append(name)
        lines += [
            f"Not verifiable: {len(names)} tensors ({reason}): {', '.join(names[:4])}{' …' if len(names) > 4 else ''}."
            for reason, names in reasons.items()
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": self.folder,
            "base": self.base,
            "ok": self.ok,
            "verdict": str(self.proof),
            "disagreements": [disagreement.to_dict() for disagreement in self.disagreements],
            "hashed": self.hashed,
            "from_base": self.from_base,
            "unverified": dict(self.unverified),
        }


def verify_run(folder: str | PathLike[str], base: str | PathLike[str] | None = None) -> RunProof:
    """Check the proof of a training run again, from the files alone.

    The weights must hash to what the proof says of them after training; what it says of them before must be so in the
    base; the plan must freeze what the proof says was frozen; and the proof must agree with itself. Nothing is signed:
    who changes a tensor that may train, and its digest in ``proof.json``, is not found out.

    Args:
        folder: What ``frostline train`` left, or ``save_model`` of ``fl.Trainer`` after training: weights,
            ``proof.json``, and ``plan.json`` where something was frozen.
        base: The checkpoint that the run started from; by default the one that ``metrics.json`` names.

    Returns:
        The proof and where the files contradict it; it is not raised.

    Raises:
        ModelError: If the folder holds no proof that can be read, or folder or base no weights.
    """
    source = locate(folder)
    place = source.folder
    if place is None:
        raise ModelError(f"There is no folder '{source.name}'.\nGive the folder that a run left.")
    stored = _read(place / _PROOF)
    if stored is None:
        raise ModelError(
            f"The folder '{source.name}' holds no {_PROOF}, so there is no proof to check.\n"
            "Give the folder that 'frostline train' left, or save_model of fl.Trainer after its training."
        )
    settings = (_read(place / _METRICS) or {}).get("settings")
    settings = settings if isinstance(settings, dict) else {}
    model = skeleton(load_config(source), source.name)
    anatomy = ModelMap.of(model)
    proof = _redrawn(stored, anatomy, source.name)
    found = list(_inner(stored, proof))
    found += _plan(place, settings, model, proof)
    check = _Weights(model, anatomy, proof)
    found += check.after(Checkpoint.open(place))
    base = _named(settings) if base is None else base
    origin = None
    if base is not None:
        try:
            origin = Checkpoint.open(base)
        except ModelError as error:
            raise ModelError(f"{str(error).splitlines()[0]}\nName the base of this run with --base.") from None
        found += check.before(origin)
    return RunProof(
        folder=source.name,
        base=origin.source.name if origin is not None else None,
        proof=proof,
        disagreements=tuple(found),
        hashed=check.hashed,
        from_base=check.from_base,
        unverified=check.unverified,
    )


def _named(settings: Mapping[str, Any]) -> str | None:
    name = settings.get("model")
    if not isinstance(name, str | None):
        raise ModelError(
            f"The 'model' in {_METRICS} is {str(name)[:80]!r}, which is no name of a checkpoint.\n"
            "Name the base of this run with --base."
        )
    return name


def _read(file: Path) -> dict[str, Any] | None:
    try:
        values = read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"'{file}' cannot be read ({str(error)[:80]}).\nIt is not as the run wrote it.") from None
    if not isinstance(values, dict):
        raise ModelError(f"'{file}' holds no object.\nIt is not as the run wrote it.")
    return values


def _redrawn(stored: Mapping[str, Any], anatomy: ModelMap, name: str) -> Proof:
    """Draw up the proof anew from nothing but its digests and what was frozen."""
    try:
        rows: dict[str, dict[str, Any]] = stored["tensors"]
        before = {tensor: str(row["before"]) for tensor, row in rows.items() if row["before"] is not None}
        after = {tensor: str(row["after"]) for tensor, row in rows.items() if row["after"] is not None}
        frozen = [tensor for tensor, row in rows.items() if row["frozen"] is True]
        step = stored.get("from_step", 0)
        if not isinstance(step, int) or step < 0:
            raise ModelError(f"The 'from_step' in the {_PROOF} of '{name}' is {str(step)[:80]!r}, which is no step.")
        return replace(compare(Fingerprint(before, {}), Fingerprint(after, {}), anatomy, frozen), from_step=step)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The {_PROOF} of '{name}' lacks {error}.\nIt is not as the run wrote it.") from None
    except PlanError:
        raise ModelError(f"The {_PROOF} of '{name}' is of another model: they share no tensor name.") from None


def _inner(stored: Mapping[str, Any], proof: Proof) -> Iterator[Disagreement]:
    """Where a proof contradicts itself, or the model."""
    drawn = proof.to_dict()
    known = drawn["tensors"]
    for name in stored["tensors"].keys() - known.keys():
        yield Disagreement(_PROOF, name, f"{_PROOF} has a row for {name}, which the model does not have")
    for name, row in known.items():
        if name not in stored["tensors"]:
            yield Disagreement(_PROOF, name, f"{_PROOF} has no row for {name}")
        elif stored["tensors"][name] != row:
            yield Disagreement(_PROOF, name, f"the row of {name} in {_PROOF} is not what a run writes")
    # Not the sentence that sums it up: its words may change from release to release.
    for key in ("version", "ok", "units"):
        if stored.get(key) != drawn[key]:
            yield Disagreement(_PROOF, None, f"the '{key}' of {_PROOF} does not follow from its digests")


def _plan(folder: Path, settings: Mapping[str, Any], model: PreTrainedModel, proof: Proof) -> Iterator[Disagreement]:
    """Where a plan freezes anything else than the proof says."""
    frozen = {tensor.name for tensor in proof.tensors if tensor.frozen}
    plans: dict[str, Plan] = {}
    try:
        if (folder / PLAN_FILE).exists():
            plans[PLAN_FILE] = Plan.load(folder)
        elif frozen:
            yield Disagreement(
                PLAN_FILE, None, f"{PLAN_FILE} is missing, and the proof has {len(frozen)} frozen tensors"
            )
        if settings.get("freeze") is not None or settings.get("train_only") is not None:
            plans[_METRICS] = Plan.from_dict(
                {"version": 1} | {key: settings[key] for key in _PLANNED if key in settings}
            )
    except PlanError as error:
        file = _METRICS if plans or not (folder / PLAN_FILE).exists() else PLAN_FILE
        yield Disagreement(file, None, f"the plan in {file} cannot be read: {str(error).splitlines()[0].rstrip('.')}")
    for file, plan in plans.items():
        try:
            planned = planned_names(model, plan)
        except SelectorError as error:
            yield Disagreement(file, None, f"the plan in {file} does not fit: {str(error).splitlines()[0].rstrip('.')}")
            continue
        for name in sorted(planned ^ frozen):
            words = ("freezes", "free") if name in planned else ("does not freeze", "frozen")
            yield Disagreement(file, name, f"the plan in {file} {words[0]} {name}; the proof has it {words[1]}")


class _Weights:
    """Compares digests of stored tensors with those of a proof, and keeps count."""

    def __init__(self, model: PreTrainedModel, anatomy: ModelMap, proof: Proof) -> None:
        self._model = model
        self._firsts = {name: group[0] for group in anatomy.tied for name in group}
        self._parameters = {self._firsts.get(name, name) for name, _ in model.named_parameters()}
        self._proof = proof
        self._dtypes: dict[str, torch.dtype] = {}
        self.hashed = 0
        self.from_base = 0
        self.unverified: dict[str, str] = {}

    def after(self, run: Checkpoint) -> Iterator[Disagreement]:
        """Where the folder's weights are not those that the proof saw at the end."""
        places = Places(self._model, run.tensors)
        for name in run.tensors:
            if not places(name):
                yield Disagreement("weights", name, f"the weights hold {name}, which the model does not have")
        digests = self._digests(places, self._dtypes)
        for tensor in self._proof.tensors:
            digest = digests.get(tensor.name)
            if digest is not None and digest == tensor.after:
                self.hashed += 1
            elif digest is not None:
                yield Disagreement("weights", tensor.name, f"the weights of {tensor.name} are not those of the proof")
            elif tensor.name in self._parameters:
                yield Disagreement("weights", tensor.name, f"the weights do not hold {tensor.name}")
            elif tensor.after is not None:
                self.unverified[tensor.name] = "not saved with the weights"

    def before(self, base: Checkpoint) -> Iterator[Disagreement]:
        """Where the proof did not begin with the base's weights."""
        places = Places(self._model, base.tensors)
        reshaped = {
            self._firsts.get(name, name)
            for part in places.parts
            for name, shape in part.shapes.items()
            if shape != places.shapes[name]
        }
        digests = self._digests(places, dict(self._dtypes), leave=reshaped)
        step = self._proof.from_step
        for tensor in self._proof.tensors:
            if tensor.name in reshaped:
                if tensor.frozen:
                    yield Disagreement(
                        "base", tensor.name, f"{tensor.name} is frozen, but has another shape than in the base"
                    )
                else:
                    self.unverified.setdefault(tensor.name, "in another shape in the base")
            elif tensor.name not in digests:
                self.unverified.setdefault(tensor.name, "not in the base, so the state before training is not known")
            elif digests[tensor.name] == tensor.before:
                self.from_base += 1
            elif step and not tensor.frozen:
                self.unverified.setdefault(tensor.name, f"the proof begins at step {step}, not with the base")
            else:
                word = "frozen, but its" if tensor.frozen else "free, and its"
                yield Disagreement(
                    "base", tensor.name, f"{tensor.name} is {word} state before training is not that of the base"
                )

    def _digests(self, places: Places, dtypes: dict[str, torch.dtype], leave: Collection[str] = ()) -> dict[str, str]:
        """SHA-256 of what the loader makes of a checkpoint: per parameter or buffer, under its first name.

        Args:
            places: What its tensors are for.
            dtypes: Per name, the dtype to give the tensor before; names that it lacks are added.
            leave: Names to leave out.
        """
        digests: dict[str, str] = {}
        as_is: dict[str, StoredTensor] = {}
        for part in places.parts:
            names = {name: self._firsts.get(name, name) for name in part.shapes}
            if set(leave).issuperset(names.values()) or None in part.shapes.values():
                continue
            made = {names[name]: tensor for name, tensor in part.load().items()}
            made = {name: tensor.cast(dtypes.setdefault(name, tensor.dtype)) for name, tensor in made.items()}
            if part.conversion is None:
                as_is |= {name: tensor for name, tensor in made.items() if name not in as_is}
            else:  # in memory, so one at a time
                digests |= {name: tensor.digest() for name, tensor in made.items()}
        return digests | digests_of(as_is)
