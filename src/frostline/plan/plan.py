"""A plan: which parameters train, which are frozen, and how frozen modules behave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from frostline.anatomy.modelmap import ModelMap
from frostline.base.json import picked, read_json, write_json
from frostline.errors import PlanError
from frostline.plan.describe import describe
from frostline.plan.recipe import compile_selector

if TYPE_CHECKING:
    from torch import nn

FrozenMode = Literal["eval", "train"]
PLAN_FILE = "plan.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Which parameters are frozen, and how frozen modules behave.

    Exactly one of `freeze` and `train_only` is given.

    Attributes:
        freeze: A selector of what is frozen; what it does not mean stays as it is.
        train_only: A selector of what trains; all else is frozen.
        frozen_mode: ``"eval"``: frozen modules stay in eval mode (dropout off, BatchNorm statistics
            fixed) whatever ``model.train()`` says. ``"train"``: they follow it.

    Raises:
        PlanError: If both or none of the selectors are given, or the mode is unknown.
    """

    freeze: str | None = None
    train_only: str | None = None
    frozen_mode: FrozenMode = "eval"

    def __post_init__(self) -> None:
        if (self.freeze is None) == (self.train_only is None):
            raise PlanError(
                f"A plan has either freeze or train_only; given were freeze={self.freeze!r} and "
                f"train_only={self.train_only!r}.\nName what is frozen, or name what trains."
            )
        if self.frozen_mode not in get_args(FrozenMode):
            raise PlanError(f"frozen_mode={self.frozen_mode!r} is unknown.\nGive 'eval' (the default) or 'train'.")

    @classmethod
    def named(cls, freeze: str | None, train_only: str | None, frozen_mode: FrozenMode = "eval") -> Plan | None:
        """The plan that two settings name, of which both may be left out; None where nothing is named.

        Raises:
            PlanError: If both are given, or the mode of a plan that is named is unknown.
        """
        return None if freeze is None and train_only is None else cls(freeze, train_only, frozen_mode)

    @classmethod
    def of(cls, model: nn.Module, *, frozen_mode: FrozenMode) -> Plan | None:
        """Read the plan that the flags of a model amount to.

        Args:
            model: The model, however its flags were set.
            frozen_mode: How its frozen modules behave.

        Returns:
            The plan; None where nothing is frozen.
        """
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        return cls(freeze=describe(ModelMap.of(model), frozen), frozen_mode=frozen_mode) if frozen else None

    def flags(self, model: nn.Module, anatomy: ModelMap) -> dict[str, bool]:
        """Say which flags the plan sets.

        Args:
            model: The model that the plan is for.
            anatomy: Its anatomy.

        Returns:
            Per parameter that the plan decides on, whether it trains.

        Raises:
            SelectorError: If the selector does not fit the model.
        """
        if self.train_only is not None:
            recipe = compile_selector(model, anatomy, self.train_only)
            return {decision.name: decision.selected for decision in recipe.decisions}
        recipe = compile_selector(model, anatomy, self.freeze or "")
        return dict.fromkeys(recipe.names, False)

    def __str__(self) -> str:
        text = f"freeze {self.freeze}" if self.freeze is not None else f"train only {self.train_only}"
        return text if self.frozen_mode == "eval" else f"{text} (frozen modules follow model.train())"

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, as its file holds them."""
        return {"version": _VERSION} | picked(self, "freeze", "train_only", "frozen_mode")

    @classmethod
    def from_dict(cls, values: Any) -> Plan:
        """Build a plan from plain values.

        Raises:
            PlanError: If they are not what `to_dict` gives.
        """
        known = {"version", "freeze", "train_only", "frozen_mode"}
        if not isinstance(values, dict) or not known.issuperset(values):
            raise PlanError(f"A plan is an object with {', '.join(sorted(known))}; this is {str(values)[:80]}.")
        if values.get("version") != _VERSION:
            raise PlanError(f"The plan has version {values.get('version')!r}; this Frostline reads {_VERSION}.")
        for key in ("freeze", "train_only"):
            if not isinstance(values.get(key), str | None):
                raise PlanError(f"The plan's {key} is {values[key]!r}; it must be a text or null.")
        return cls(values.get("freeze"), values.get("train_only"), values.get("frozen_mode", "eval"))

    def save(self, folder: Path | str) -> Path:
        """Write the plan beside a model's weights, as ``plan.json``.

        Returns:
            The file.
        """
        file = Path(folder) / PLAN_FILE
        write_json(file, self.to_dict(), indent=2, ensure_ascii=True)
        return file

    @classmethod
    def load(cls, source: Path | str) -> Plan:
        """Read a plan from its file, or from the folder that holds it.

        Raises:
            PlanError: If there is none, or it cannot be read.
        """
        path = Path(source)
        file = path / PLAN_FILE if path.is_dir() else path
        try:
            values = read_json(file)
        except FileNotFoundError:
            raise PlanError(f"There is no plan at '{file}'.\nfreeze(model, SELECTOR) makes one.") from None
        except (OSError, ValueError) as error:
            raise PlanError(f"The plan '{file}' cannot be read: {error}.") from None
        return cls.from_dict(values)
