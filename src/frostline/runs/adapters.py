"""The adapters of a run: where they go, what trains beside them, and the plain model that merging them leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from transformers.pytorch_utils import Conv1D

from frostline.anatomy.kinds import kinds_of
from frostline.anatomy.modelmap import ModelMap, Unit
from frostline.anatomy.origin import Origin, own_name
from frostline.anatomy.wrappers import unwrap
from frostline.base.modules import beginnings
from frostline.checkpoints.adapters import adapter_values, config_from
from frostline.checkpoints.quiet_loading import quiet
from frostline.compat.peft import require_peft, usual_targets, with_adapters
from frostline.data.messages import counted, listed
from frostline.errors import ModelError, PlanError, SettingsError
from frostline.evidence.checks.findings import some
from frostline.evidence.proof.fingerprint import Fingerprint, fingerprint, frozen_names
from frostline.evidence.proof.proof import Proof, compare
from frostline.freezing.mode import follow_flags, frozen_mode_of
from frostline.plan.recipe import compile_selector
from frostline.runs.train_settings import TrainSettings, option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TASK = "SEQ_CLS"
_RANK, _ALPHA_PER_RANK = 8, 2
# For types that PEFT does not list: the names of queries and values, as most models have them.
_QUERY_AND_VALUE = (("query", "value"), ("q_proj", "v_proj"))


def adapt(model: PreTrainedModel, origin: Origin, settings: TrainSettings) -> tuple[PreTrainedModel, str]:
    """Put the adapters of a run on a model; they train, and so does what the checkpoint lacks, and nothing else.

    Args:
        model: The classifier; changed in place.
        origin: Where its parameters come from.
        settings: What was asked for.

    Returns:
        The ``PeftModel`` around it, and what was put where, in words.

    Raises:
        MissingExtraError: If PEFT is not installed.
        SettingsError: If the targets name nothing, or the usual ones are not known.
        ModelError: If the file of PEFT cannot be used, or changes the weights before training.
        PlanError: If PEFT cannot adapt what was selected.
    """
    way = next(name for name in ("lora", "dora", "peft") if getattr(settings, name) is not None)
    require_peft(option(way))
    kept = _modules_of(model, origin)
    config = _config_of_file(Path(str(settings.peft))) if way == "peft" else _lora_config(model, settings, kept)
    config.task_type, config.inference_mode = _TASK, False
    config.base_model_name_or_path = settings.model
    own = list(getattr(config, "modules_to_save", None) or ())
    config.modules_to_save = [*own, *kept]
    before = fingerprint(model) if way == "peft" else None
    try:
        with quiet():
            adapted = with_adapters(model, config)
    except Exception as error:  # PEFT raises errors of many kinds for what it cannot adapt
        reason = " ".join(str(error).split())[:160]
        raise PlanError(f"PEFT cannot put the adapters of {option(way)} on {type(model).__name__}: {reason}") from error
    if before is not None:
        _refuse_changed_base(adapted, before, settings.peft)
    if settings.merge and not hasattr(adapted.base_model, "merge_and_unload"):
        raise SettingsError(f"--merge cannot merge adapters of the kind {config.peft_type.value}.\nLeave it out.")
    # As it will be saved: without doubles, in an order that is the same each time.
    config.modules_to_save = sorted({*own, *kept})
    if isinstance(getattr(config, "target_modules", None), set):
        config.target_modules = sorted(config.target_modules)
    return adapted, _in_words(adapted, config)


def _modules_of(model: PreTrainedModel, origin: Origin) -> list[str]:
    """The modules to train and save beside the adapters: those of the head, and what the checkpoint lacks."""
    names = {name for unit in ModelMap.of(model).units if unit.kind == "head" for name in unit.parameter_names}
    names |= origin.new
    frozen = {path for name, _ in model.named_parameters() if name not in names for path in beginnings(name)}
    # The outermost modules that hold nothing else.
    return sorted({next(path for path in beginnings(name) if path not in frozen) for name in names})


def _config_of_file(file: Path) -> Any:
    values = adapter_values(file.expanduser())
    config = config_from(values, file)
    unknown = sorted(values.keys() - config.to_dict().keys())
    if unknown:
        raise ModelError(
            f"'{file}' has {unknown[0]!r}, which this PEFT does not know for {values['peft_type']}.\nTake it out."
        )
    if config.task_type not in {None, _TASK}:
        raise ModelError(f"'{file}' is for the task {str(values['task_type'])!r}; train takes {_TASK!r}.\nChange it.")
    return config


def _lora_config(model: PreTrainedModel, settings: TrainSettings, kept: Iterable[str]) -> Any:
    from peft import LoraConfig

    selector = settings.lora if settings.lora is not None else str(settings.dora)
    inside = _linear_layers(model, selector, kept)
    rank = settings.rank if settings.rank is not None else _RANK
    paths = _targets(model, inside, selector, settings)
    return LoraConfig(
        r=rank,
        lora_alpha=cast("int", settings.alpha if settings.alpha is not None else _ALPHA_PER_RANK * rank),
        target_modules=paths,
        use_dora=settings.dora is not None,
        fan_in_fan_out=all(isinstance(model.get_submodule(path), Conv1D) for path in paths),
    )


def _linear_layers(model: PreTrainedModel, selector: str, kept: Iterable[str]) -> list[str]:
    """Paths of the linear layers within what a selector means, but for those that train as they are."""
    names = set(compile_selector(model, ModelMap.of(model), selector).names)
    whole = set(kept)
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and f"{path}.weight" in names and whole.isdisjoint(beginnings(path))
    ]
    if not found:
        raise SettingsError(
            f"'{selector}' means no linear layer of {type(model).__name__} that could be adapted.\n"
            "Name layers: 'layers[-4:]'."
        )
    return found


def _targets(model: PreTrainedModel, inside: list[str], selector: str, settings: TrainSettings) -> list[str]:
    """Those of some linear layers that are asked for, or the usual ones."""
    if settings.targets is not None:
        for target in settings.targets:
            if not _named(inside, [target]):
                raise SettingsError(
                    f"--targets names {target!r}, which no linear layer in '{selector}' is called.\n"
                    f"There are: {', '.join(_short_names(model, inside))}."
                )
        return _named(inside, settings.targets)
    usual = usual_targets(model.config.model_type)
    if isinstance(usual, str):
        found = [path for path in inside if re.fullmatch(usual, path)]
    else:
        found = _named(inside, usual or ())
    for names in _QUERY_AND_VALUE:
        found = found or _named(inside, names)
    if not found:
        raise SettingsError(
            f"Which linear layers to adapt in '{selector}' of a model of the type {model.config.model_type!r} is not "
            f"known.\nName them by --targets: {', '.join(_short_names(model, inside))}."
        )
    return found


def _named(paths: Iterable[str], targets: Iterable[str]) -> list[str]:
    ends = tuple(f".{target}" for target in targets)
    return [path for path in paths if f".{path}".endswith(ends)]


def _short_names(model: PreTrainedModel, paths: Iterable[str]) -> list[str]:
    """The paths of modules within their layers, each once."""
    layers = {path for stack in ModelMap.of(model).stacks for layer in stack.layers for path in layer}
    names = []
    for path in paths:
        layer = next((outer for outer in beginnings(path) if outer in layers), None)
        names.append(path if layer is None else path.removeprefix(f"{layer}.") if layer != path else path)
    return list(dict.fromkeys(names))


def _refuse_changed_base(adapted: Any, before: Fingerprint, file: str | None) -> None:
    """Refuse a way to begin that changes the weights beneath (PiSSA and others): its adapters fit no base as it is."""
    prefix = unwrap(adapted).prefix
    for name, digest in fingerprint(adapted).digests.items():
        if before.digests.get(own_name(name, prefix), digest) != digest:
            raise ModelError(
                f"'{file}' changes the weights of the base before training, {own_name(name, prefix)} among them.\n"
                "Adapters on a base that stays as it is are trained only: take out what it begins with "
                "(init_lora_weights)."
            )


def _in_words(adapted: Any, config: Any) -> str:
    kind = "DoRA" if getattr(config, "use_dora", False) else {"LORA": "LoRA"}.get(config.peft_type.value)
    said = kind or config.peft_type.value
    if kind is not None:
        said += f" of rank {config.r}, alpha {config.lora_alpha:g}"
    paths = [
        path
        for path, module in adapted.named_modules()
        if (parts := getattr(module, "adapter_layer_names", ())) and "modules_to_save" not in parts
    ]
    units = [unit for unit in ModelMap.of(adapted).units if any(_holds(unit, path) for path in paths)]
    where = some([unit.name for unit in units])
    on = f" in {counted(len(paths), 'module')} of {where}" if where else ""
    return f"{said}{on}; beside them train {listed(config.modules_to_save)}"


def _holds(unit: Unit, path: str) -> bool:
    return any(name.startswith(f"{path}.") for name in unit.parameter_names)


def merge(adapted: PreTrainedModel, proof: Proof) -> tuple[PreTrainedModel, Proof]:
    """Merge the adapters of a run into the weights, and prove what that leaves.

    Args:
        adapted: The ``PeftModel``, trained; not to be used any more.
        proof: The proof of its training.

    Returns:
        The plain model, in which all is frozen but what the adapters and the training changed; and the proof that
        compares it with the model before the training.
    """
    prefix = unwrap(adapted).prefix
    adapters = kinds_of(adapted)["adapters"]
    own = {row.name: own_name(row.name, prefix) for row in proof.tensors}
    before = {own[row.name]: row.before for row in proof.tensors if row.name not in adapters and row.before is not None}
    inside = {own[row.name] for row in proof.tensors if ".base_layer." in row.name}
    mode = frozen_mode_of(adapted)
    model = cast("Any", adapted).merge_and_unload()
    after = fingerprint(model)
    # Of a layer with adapters, merging may leave the bias alone.
    free = {own[row.name] for row in proof.tensors if not row.frozen}
    free |= {name for name in inside if after.digests[name] != before[name]}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free)
    follow_flags(model, stay_in_eval=mode == "eval")
    merged = compare(Fingerprint(before, {}), after, ModelMap.of(model), frozen_names(model))
    return model, replace(
        proof, tensors=merged.tensors, units=merged.units, flags=merged.flags, thawed=(), newly_frozen=()
    )
