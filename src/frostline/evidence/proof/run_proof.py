"""The proof of a training run, checked again from the files that it left."""

from __future__ import annotations

from dataclasses import replace
from os import fspath
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.base.escaping import printable
from frostline.base.json import read_json
from frostline.base.sealing import SEAL_FILE, Seal, is_digest
from frostline.checkpoints.classifier import load_classifier
from frostline.checkpoints.headers import is_adapter, is_delta
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import locate
from frostline.errors import ModelError, PlanError, SelectorError, SettingsError
from frostline.evidence.proof.fingerprint import Fingerprint
from frostline.evidence.proof.phase_proof import PhaseProof
from frostline.evidence.proof.proof import Proof, compare, planned_names
from frostline.evidence.proof.run_phases import disagreements_on_phases
from frostline.evidence.proof.run_result import METRICS_FILE, PROOF_FILE, Disagreement, RunProof
from frostline.evidence.proof.run_weights import AdaptedWeights, StoredWeights
from frostline.plan.plan import PLAN_FILE, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    from transformers import PreTrainedModel


_PLANNED = ("freeze", "train_only", "frozen_mode")


def verify_run(
    folder: str | PathLike[str],
    base: str | PathLike[str] | None = None,
    *,
    no_base: bool = False,
    digest: str | None = None,
) -> RunProof:
    """Check the proof of a training run again, from the files alone.

    The weights must hash to what the proof says of them after training; what it says of them before must be so in the
    base; the plan must freeze what the proof says was frozen; the proof must agree with itself; and every file must be
    as ``files.json`` says. Nothing is signed: who rewrites all of that consistently is found out by the base alone,
    where it is about a frozen tensor, and by a `digest` that was noted elsewhere, whatever it is about.

    Args:
        folder: What ``frostline train`` left, or ``save_model`` of ``fl.Trainer`` after training: weights, or adapters
            of PEFT, which are put on their base; ``proof.json``, and ``plan.json`` where something was frozen.
        base: The checkpoint that the run started from; by default the one that ``metrics.json`` names.
        no_base: Whether to compare with no base, as for a model that started from none.
        digest: The digest of the run's files, as ``frostline train`` printed it.

    Returns:
        The proof and where the files contradict it; it is not raised.

    Raises:
        ModelError: If the folder holds no proof that can be read, a file of the run is missing, no base is known, or
            folder or base have no weights.
        SettingsError: If a base is given and none wanted, or the digest is none.
    """
    if no_base and base is not None:
        raise SettingsError(
            f"The base is '{base}', and none is wanted.\nGive --base (base=) or --no-base (no_base=True)."
        )
    if digest is not None and not is_digest(digest):
        raise SettingsError(
            f"{str(digest)[:80]!r} is no digest, which has 64 hex digits.\nGive what 'frostline train' printed."
        )
    source = locate(folder)
    place = source.folder
    if place is None:
        raise ModelError(f"There is no folder '{source.name}'.\nGive the folder that a run left.")
    if is_delta(place):
        raise ModelError(f"'{source.name}' is a delta of a run.\nRebuild the run first: frostline delta load.")
    stored = _read(place / PROOF_FILE)
    if stored is None:
        raise ModelError(
            f"The folder '{source.name}' holds no {PROOF_FILE}, so there is no proof to check.\n"
            "Give the folder that 'frostline train' left, or save_model of fl.Trainer after its training."
        )
    metrics = _read(place / METRICS_FILE) or {}
    noted = metrics.get("settings")
    is_of_command = isinstance(noted, dict)
    settings: dict[str, Any] = noted if isinstance(noted, dict) else {}
    seal = _sealed(place, source.name, is_needed=is_of_command or digest is not None)
    has_adapters = is_adapter(place)
    base = _base(source.name, settings, base, no_base=no_base, is_needed=not has_adapters)
    model = load_classifier(source.name, base=base)[0] if has_adapters else skeleton(load_config(source), source.name)
    anatomy = ModelMap.of(model)
    proof = _redrawn(stored, anatomy, source.name)
    found = list(_files(place, seal, digest))
    found += _inner(stored, proof)
    if is_of_command and proof.from_step:  # the command goes on from no checkpoint without the fingerprint of its start
        text = f"{PROOF_FILE} begins at step {proof.from_step}, and those of 'frostline train' at 0"
        found.append(Disagreement(PROOF_FILE, None, text))
    found += disagreements_on_phases(metrics.get("schedule"), settings.get("frozen_mode", "eval"), model, proof)
    found += _plan(place, settings, model, proof)
    check = AdaptedWeights(model, proof) if has_adapters else StoredWeights(model, anatomy, proof)
    found += check.compare(place, base)
    return RunProof(
        folder=source.name,
        base=check.base,
        proof=proof,
        disagreements=tuple(found),
        hashed=check.hashed,
        from_base=check.from_base,
        unverified=check.unverified,
        files=len(seal.files) if seal is not None else 0,
        digest=seal.digest if seal is not None else None,
        beside=tuple(seal.beside(place)) if seal is not None else (),
    )


def _base(
    name: str, settings: Mapping[str, Any], given: str | PathLike[str] | None, *, no_base: bool, is_needed: bool
) -> str | None:
    """The base to compare with, as it was given or as the settings name it; adapters name theirs themselves."""
    if no_base and not is_needed:
        raise SettingsError(f"'{name}' holds adapters, which are nothing without a base.\nLeave --no-base out.")
    if no_base:
        return None
    base = _named(settings) if given is None else fspath(given)
    if base is None and is_needed:
        raise ModelError(
            f"The files in '{name}' name no base to compare with.\n"
            "Name it with --base, or pass --no-base for a model that started from none."
        )
    return base


def _sealed(folder: Path, name: str, *, is_needed: bool) -> Seal | None:
    """The list of the files that a run left, all of which are there; None for a folder that has none and needs none.

    Raises:
        ModelError: If it is missing and needed, damaged, or a file is missing.
    """
    try:
        seal = Seal.read(folder)
    except FileNotFoundError:
        if not is_needed:
            return None
        missing = [SEAL_FILE]
    except (OSError, ValueError) as error:
        raise ModelError(f"'{folder / SEAL_FILE}' cannot be read ({error}).\nIt is not as the run wrote it.") from None
    else:
        missing = seal.missing(folder)
    if missing:
        raise ModelError(f"The folder '{name}' lacks {missing[0]}, which a run leaves.\nCopy the folder anew, whole.")
    return seal


def _files(folder: Path, seal: Seal | None, digest: str | None) -> Iterator[Disagreement]:
    """Where a file is not as the run wrote it."""
    if seal is None:
        return
    if digest is not None and seal.digest != digest:
        yield Disagreement(SEAL_FILE, None, f"the digest of the files is {seal.digest}, not {digest}")
    for name in seal.altered(folder):
        yield Disagreement(name, None, f"{name} is not as the run wrote it")


def _named(settings: Mapping[str, Any]) -> str | None:
    name = settings.get("model")
    if not isinstance(name, str | None):
        raise ModelError(
            f"The 'model' in {METRICS_FILE} is {str(name)[:80]!r}, which is no name of a checkpoint.\n"
            "Name the base of this run with --base."
        )
    return name


def _read(file: Path) -> dict[str, Any] | None:
    try:
        values = read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)[:80]
        raise ModelError(f"'{file}' cannot be read ({reason}).\nIt is not as the run wrote it.") from None
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
            raise ModelError(
                f"The 'from_step' in the {PROOF_FILE} of '{name}' is {str(step)[:80]!r}, which is no step."
            )
        phases = tuple(PhaseProof.from_dict(phase) for phase in stored.get("phases", ()))
        proof = compare(Fingerprint(before, {}), Fingerprint(after, {}), anatomy, frozen)
        return replace(proof, from_step=step, phases=phases)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The {PROOF_FILE} of '{name}' lacks {error}.\nIt is not as the run wrote it.") from None
    except PlanError:
        raise ModelError(f"The {PROOF_FILE} of '{name}' is of another model: they share no tensor name.") from None


def _inner(stored: Mapping[str, Any], proof: Proof) -> Iterator[Disagreement]:
    """Where a proof contradicts itself, or the model."""
    drawn = proof.to_dict()
    known = drawn["tensors"]
    for name in stored["tensors"].keys() - known.keys():
        yield Disagreement(
            PROOF_FILE, name, f"{PROOF_FILE} has a row for {printable(name)}, which the model does not have"
        )
    for name, row in known.items():
        if name not in stored["tensors"]:
            yield Disagreement(PROOF_FILE, name, f"{PROOF_FILE} has no row for {name}")
        elif stored["tensors"][name] != row:
            yield Disagreement(PROOF_FILE, name, f"the row of {name} in {PROOF_FILE} is not what a run writes")
    # Not the sentence that sums it up: its words may change from release to release.
    for key in ("version", "ok", "units"):
        if stored.get(key) != drawn[key]:
            yield Disagreement(PROOF_FILE, None, f"the '{key}' of {PROOF_FILE} does not follow from its digests")


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
            plans[METRICS_FILE] = Plan.from_dict(
                {"version": 1} | {key: settings[key] for key in _PLANNED if key in settings}
            )
    except PlanError as error:
        file = METRICS_FILE if plans or not (folder / PLAN_FILE).exists() else PLAN_FILE
        yield Disagreement(file, None, f"the plan in {file} cannot be read: {str(error).splitlines()[0].rstrip('.')}")
    for file, plan in plans.items():
        try:
            planned = planned_names(model, plan)
        except SelectorError as error:
            yield Disagreement(file, None, f"the plan in {file} does not fit: {str(error).splitlines()[0].rstrip('.')}")
            continue
        # The plan beside the weights is that of the last phase, which freezes at least what all of them do.
        for name in sorted(frozen - planned if proof.phases else planned ^ frozen):
            words = ("freezes", "free") if name in planned else ("does not freeze", "frozen")
            yield Disagreement(file, name, f"the plan in {file} {words[0]} {name}; the proof has it {words[1]}")
