"""Freezing what a selector means, and taking it back."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from weakref import WeakKeyDictionary, ref

from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import refuse_no_module, unwrap
from frostline.base.dtypes import can_have_gradient
from frostline.base.modules import beginnings
from frostline.compat.models import hub_file
from frostline.compat.modules import COMPILED_CHILD, is_compiled_in_place
from frostline.errors import PlanError
from frostline.freezing.mode import follow_flags, frozen_mode_of, frozen_modules, is_pinned, pin, unpin
from frostline.plan.describe import describe
from frostline.plan.plan import PLAN_FILE, FrozenMode, Plan
from frostline.plan.selectors import join


@dataclass(slots=True, eq=False)
class _Change:
    """What one plan changed on a model.

    Attributes:
        flags: Per parameter whose flag was changed, the flag before.
        stay_in_eval: Whether frozen modules are kept in eval mode.
        compiled: Whether ``torch.compile`` had been called on the model by then.
    """

    flags: dict[str, bool]
    stay_in_eval: bool
    compiled: bool = False


@dataclass(slots=True)
class _Record:
    """A model with plans in force.

    Attributes:
        pinned: Ids of the modules that were kept in eval mode before the first of them.
        savers: The model, and those inside it where it is a wrapper, whose ``save_pretrained`` writes the plan
            since then.
        changes: One per plan in force, the oldest first.
    """

    pinned: set[int]
    savers: list[ref[nn.Module]]  # a strong reference would keep the model alive for good
    changes: list[_Change]


_RECORDS: WeakKeyDictionary[nn.Module, _Record] = WeakKeyDictionary()


class Freeze:
    """A plan in force on a model; `restore` takes it back, and so does leaving a ``with`` block.

    Attributes:
        model: The model.
        plan: The plan.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        flags = plan.flags(model, ModelMap.of(model))
        _refuse_whole_numbers(model, plan, flags)
        self.model = model
        self.plan = plan
        self._change = _Change({}, plan.frozen_mode == "eval", _is_compiled(model))
        if model not in _RECORDS:
            pinned = {id(module) for module in model.modules() if is_pinned(module)}
            _RECORDS[model] = _Record(pinned, [], [])
        earlier = {name for change in _RECORDS[model].changes for name, flag in change.flags.items() if flag}
        self._left = earlier - flags.keys()
        _RECORDS[model].changes.append(self._change)
        for name, parameter in model.named_parameters():
            if name in flags and parameter.requires_grad != flags[name]:
                self._change.flags[name] = parameter.requires_grad
                parameter.requires_grad_(flags[name])
            if not parameter.requires_grad:
                parameter.grad = None  # an optimizer would still apply a gradient that lingers
        follow_flags(model, stay_in_eval=self._change.stay_in_eval)
        for saver in _savers(model):
            vars(saver)["save_pretrained"] = SaveWithPlan(saver)
            _RECORDS[model].savers.append(ref(saver))

    @property
    def frozen_beside(self) -> frozenset[str]:
        """Names of the parameters that an earlier plan froze, this one does not name, and that are frozen still."""
        return frozenset(
            name
            for name, parameter in self.model.named_parameters()
            if name in self._left and not parameter.requires_grad
        )

    def restore(self) -> None:
        """Give flags and modes back as they were before; a second call does nothing.

        Where another plan was put in force since, what that one changed stays until it is restored too.
        """
        record = _RECORDS.get(self.model)
        if record is None or self._change not in record.changes:
            return
        later = record.changes[record.changes.index(self._change) + 1 :]
        record.changes.remove(self._change)
        parameters = dict(self.model.named_parameters())
        for name, flag in self._change.flags.items():
            heir = next((change for change in later if name in change.flags), None)
            if heir is not None:
                heir.flags[name] = flag
            elif name in parameters:
                parameters[name].requires_grad_(flag)
        if record.changes:
            follow_flags(self.model, stay_in_eval=record.changes[-1].stay_in_eval)
            return
        keep = [module for module in frozen_modules(self.model) if id(module) in record.pinned]
        kept = {id(module) for module in keep}
        for module in self.model.modules():
            if id(module) not in kept:
                unpin(module)
        pin(keep)
        for reference in record.savers:
            if (saver := reference()) is not None:
                vars(saver).pop("save_pretrained", None)
        del _RECORDS[self.model]

    def __str__(self) -> str:
        """The plan, and what of the model is frozen now, in plain text."""
        parameters = dict(self.model.named_parameters())
        frozen = {name: parameter for name, parameter in parameters.items() if not parameter.requires_grad}
        sizes = [sum(parameter.numel() for parameter in some.values()) for some in (frozen, parameters)]
        taken_back = "" if self.model in _RECORDS and self._change in _RECORDS[self.model].changes else " (taken back)"
        lines = [
            f"{type(self.model).__name__}: {self.plan}{taken_back}",
            f"{len(frozen):,} of {len(parameters):,} tensors are frozen: {sizes[0]:,} of {sizes[1]:,} parameters.",
        ]
        selector = describe(ModelMap.of(self.model), frozen)
        if selector not in ("", self.plan.freeze):
            lines.append(f"Frozen: {selector}")
        return "\n".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


def _savers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model and those inside it where it is a wrapper, if they save themselves and write no plan yet."""
    for path in beginnings(unwrap(model).prefix.rstrip(".")):
        module = model.get_submodule(path)
        # A wrapper may hand on a method that it has not.
        writes_plan = isinstance(vars(module).get("save_pretrained"), SaveWithPlan)
        if hasattr(type(module), "save_pretrained") and not writes_plan:
            yield module


def frozen_when_compiled(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters whose flags a plan in force changed after ``torch.compile`` was called.

    Args:
        model: The model, in the wrappers in which it was frozen.
    """
    record = _RECORDS.get(model)
    changes = [] if record is None else record.changes
    return tuple(name for change in changes if change.compiled for name in change.flags)


def _is_compiled(model: nn.Module) -> bool:
    """Whether a module is the wrapper that ``torch.compile`` makes, or was compiled in place."""
    return any(
        COMPILED_CHILD in dict(module.named_children()) or is_compiled_in_place(module) for module in model.modules()
    )


class SaveWithPlan:
    """Stands in for the ``save_pretrained`` method of a model with frozen parts: writes the plan as well."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, save_directory: str | Path, *arguments: Any, **options: Any) -> Any:
        """Save as the model's class does, then write ``plan.json`` beside the weights."""
        save = cast("Any", type(self._model)).save_pretrained
        saved = save(self._model, save_directory, *arguments, **options)
        given = inspect.signature(save).bind(self._model, save_directory, *arguments, **options)
        if given.arguments.get("is_main_process", True):
            plan = Plan.of(self._model, frozen_mode=frozen_mode_of(self._model))
            if plan is None:
                (Path(save_directory) / PLAN_FILE).unlink(missing_ok=True)
            else:
                plan.save(save_directory)
        return saved


def freeze(
    model: nn.Module,
    selectors: str | Iterable[str] | Plan | None = None,
    *,
    frozen_mode: FrozenMode = "eval",
) -> Freeze:
    """Freeze the parameters that a selector means; all others stay as they are.

    A gradient that a frozen parameter still holds is dropped. Frozen modules, those frozen earlier or by
    hand included, are kept in eval mode from then on, unless `frozen_mode` is ``"train"``. On a model of
    transformers, ``save_pretrained`` then writes the plan beside the weights.

    Args:
        model: The model; changed in place.
        selectors: What to freeze, in the selector language; or a plan; or None for the plan that
            stands beside the weights the model was loaded from.
        frozen_mode: ``"eval"`` or ``"train"``; a plan brings its own.

    Returns:
        A handle that takes it back: ``.restore()``, or the end of a ``with`` block.

    Raises:
        ModelError: If the model is none; a name is to be loaded first.
        SelectorError: If the selector cannot be read or does not fit the model.
        PlanError: If the plan beside the weights is missing or cannot be read.
    """
    refuse_no_module(model)
    if selectors is None:
        plan = _stored_plan(model)
    elif isinstance(selectors, Plan):
        plan = selectors
    else:
        plan = Plan(freeze=join(selectors), frozen_mode=frozen_mode)
    return Freeze(model, plan)


def train_only(model: nn.Module, selectors: str | Iterable[str], *, frozen_mode: FrozenMode = "eval") -> Freeze:
    """Let only the parameters train that a selector means; freeze all others.

    Args:
        model: The model; changed in place.
        selectors: What trains, in the selector language.
        frozen_mode: ``"eval"`` or ``"train"``, as for `freeze`.

    Returns:
        A handle that takes it back, as for `freeze`.

    Raises:
        ModelError: If the model is none.
        SelectorError: If the selector cannot be read or does not fit the model.
    """
    return Freeze(model, Plan(train_only=join(selectors), frozen_mode=frozen_mode))


def _refuse_whole_numbers(model: nn.Module, plan: Plan, flags: dict[str, bool]) -> None:
    """Refuse to train what cannot have a gradient, before anything is changed."""
    for name, parameter in model.named_parameters():
        if flags.get(name) and not can_have_gradient(parameter):
            raise PlanError(
                f"The plan '{plan}' trains {name}, but its values are whole numbers ({parameter.dtype}), which have "
                "no gradient.\nTake it away from what trains with a term '~NAME'."
            )


def _stored_plan(model: nn.Module) -> Plan:
    name = getattr(model, "name_or_path", "")
    if not name:
        raise PlanError(
            f"freeze({type(model).__name__}) names nothing to freeze, and the model was loaded from no folder "
            "that could hold a plan.\nName what to freeze: freeze(model, 'backbone')."
        )
    if Path(name).is_dir():
        return Plan.load(name)
    file = hub_file(name, PLAN_FILE, refuses_no_network=True)
    if file is None:
        raise PlanError(f"'{name}' carries no {PLAN_FILE}.\nName what to freeze: freeze(model, 'backbone').")
    return Plan.load(file)
