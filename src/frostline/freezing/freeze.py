"""Freezing what a selector means, and taking it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from frostline.anatomy.modelmap import ModelMap
from frostline.errors import PlanError
from frostline.freezing.mode import follow_flags, frozen_mode_of, frozen_modules, is_pinned, unpin
from frostline.plan.plan import PLAN_FILE, FrozenMode, Plan
from frostline.plan.selectors import join

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from torch import nn


class Freeze:
    """A plan in force on a model; `restore` takes it back, and so does leaving a ``with`` block.

    Attributes:
        model: The model.
        plan: The plan.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        flags = plan.flags(model, ModelMap.of(model))
        self.model = model
        self.plan = plan
        self._was_training = model.training
        self._modes = {id(module): (is_pinned(module), module.training) for module in model.modules()}
        self._saved_plan_before = isinstance(vars(model).get("save_pretrained"), SaveWithPlan)
        self._changed: list[str] = []
        for name, parameter in model.named_parameters():
            if name in flags and parameter.requires_grad != flags[name]:
                parameter.requires_grad_(flags[name])
                self._changed.append(name)
            if not parameter.requires_grad:
                parameter.grad = None  # an optimizer would still apply a gradient that lingers
        follow_flags(model, stay_in_eval=plan.frozen_mode == "eval")
        if hasattr(model, "save_pretrained") and not self._saved_plan_before:
            vars(model)["save_pretrained"] = SaveWithPlan(model)

    def restore(self) -> None:
        """Give flags and modes back as they were before; a second call does nothing."""
        parameters = dict(self.model.named_parameters())
        for name in self._changed:
            parameters[name].requires_grad_(not parameters[name].requires_grad)
        self._changed = []
        frozen = {id(module) for module in frozen_modules(self.model)}
        for module in self.model.modules():
            was_pinned, was_training = self._modes.get(id(module), (False, self.model.training))
            if is_pinned(module) and (not was_pinned or id(module) not in frozen):
                unpin(module)
                unchanged = is_pinned(self.model) or self.model.training == self._was_training
                module.training = was_training if unchanged else self.model.training
        if not self._saved_plan_before and "save_pretrained" in vars(self.model):
            del vars(self.model)["save_pretrained"]
            self._saved_plan_before = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.restore()


class SaveWithPlan:
    """Stands in for the ``save_pretrained`` method of a model with frozen parts: writes the plan as well."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, save_directory: str | Path, *args: Any, **options: Any) -> Any:
        """Save as the model's class does, then write ``plan.json`` beside the weights."""
        saved = cast("Any", type(self._model)).save_pretrained(self._model, save_directory, *args, **options)
        if options.get("is_main_process", True):
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
        SelectorError: If the selector cannot be read or does not fit the model.
        PlanError: If the plan beside the weights is missing or cannot be read.
    """
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
        SelectorError: If the selector cannot be read or does not fit the model.
    """
    return Freeze(model, Plan(train_only=join(selectors), frozen_mode=frozen_mode))


def _stored_plan(model: nn.Module) -> Plan:
    name = getattr(model, "name_or_path", "")
    if not name:
        raise PlanError(
            f"freeze({type(model).__name__}) names nothing to freeze, and the model was loaded from no folder "
            "that could hold a plan.\nName what to freeze: freeze(model, 'backbone')."
        )
    if Path(name).is_dir():
        return Plan.load(name)
    from transformers.utils.hub import cached_file

    file = cached_file(name, PLAN_FILE, _raise_exceptions_for_missing_entries=False)
    if file is None:
        raise PlanError(f"'{name}' carries no {PLAN_FILE}.\nName what to freeze: freeze(model, 'backbone').")
    return Plan.load(file)
