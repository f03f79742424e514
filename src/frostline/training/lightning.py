"""Lightning's fit on the engine's fast paths, by a callback."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from frostline.errors import MissingExtraError, PlanError
from frostline.freezing.freeze import freeze as freeze_named
from frostline.freezing.freeze import train_only as train_only_named
from frostline.training.fast import fast
from frostline.training.lightning_phases import LightningPhases

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from frostline.training.fast import LoopEngine
else:
    _NAMES = ("lightning.pytorch", "pytorch_lightning")  # one library by two names
    _FOUND = next((name for name in _NAMES if find_spec(name.partition(".")[0]) is not None), None)
    if _FOUND is None:
        raise MissingExtraError(
            "LightningCallback needs Lightning, which is not installed.\n"
            "Install it with: pip install 'frostline[lightning]'"
        )
    Callback = import_module(f"{_FOUND}.callbacks").Callback


class LightningCallback(Callback):
    """Freezes a part of a LightningModule before its optimizer is made, and runs ``fit`` in a block of `fl.fast`.

    Args:
        freeze: What is frozen, as a selector; without one the flags stay as they are.
        train_only: What trains, as a selector; all else is frozen. Not together with `freeze`.
        schedule: What trains phase by phase, in the place of both: a list of `Phase`, the name of a preset, or a TOML
            file. Evaluations are validations, and their metrics those that the module logs.
        seed: Of the layers that a schedule draws.
        **options: As for `fl.fast`: ``store``, ``store_dir``, ``store_budget``, ``store_dtype``, ``padding_free``,
            ``guard``, ``passes``.

    Attributes:
        engine: The engine of the last fit, whose `report` says what it did; None before.
        phases: The schedule of the last fit, whose `run.proofs` prove its phases; None without one.

    Raises:
        PlanError: If a schedule and a selector are given.
    """

    def __init__(
        self,
        freeze: str | None = None,
        *,
        train_only: str | None = None,
        schedule: Any = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if schedule is not None and (freeze is not None or train_only is not None):
            raise PlanError("Both a schedule and freeze or train_only say what trains.\nGive one.")
        self._schedule = schedule
        self._seed = seed
        self._saved: dict[str, Any] | None = None
        self.phases: LightningPhases | None = None
        self._freeze = freeze
        self._train_only = train_only
        self._options = options
        self._block = ExitStack()
        self.engine: LoopEngine | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Freeze what is to be frozen, before the optimizer is made."""
        if stage == "fit" and self._freeze is not None:
            freeze_named(pl_module, self._freeze)
        if stage == "fit" and self._train_only is not None:
            train_only_named(pl_module, self._train_only)
        if stage == "fit" and self._schedule is not None:
            self.phases = LightningPhases(pl_module, self._schedule, self._seed)

    def state_dict(self) -> dict[str, Any]:
        """How far a schedule has come, for a checkpoint of Lightning's."""
        return {} if self.phases is None else self.phases.run.to_save()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take how far a schedule had come from a checkpoint."""
        self._saved = state_dict or None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the flags of the first step in force."""
        if self.phases is not None:
            self.phases.begin(trainer, self._saved)
            self._saved = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a phase where the one before is over."""
        if self.phases is not None:
            self.phases.before_batch(trainer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Put the rates of a phase in force."""
        if self.phases is not None:
            self.phases.run.put_rates(trainer.global_step, optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the step."""
        if self.phases is not None:
            self.phases.after_batch(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what a phase waits for."""
        if self.phases is not None:
            self.phases.after_validation(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Prove the last phase."""
        if self.phases is not None:
            self.phases.run.end(trainer.global_step)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to answer the model's calls."""
        self.engine = self._block.enter_context(fast(pl_module, **self._options))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the model as it was."""
        self._block.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the model as it was."""
        self._block.close()
