"""A schedule in force in Lightning's fit."""

from __future__ import annotations

from typing import Any

from frostline.errors import SettingsError
from frostline.evidence.optimizers import inner_optimizer
from frostline.evidence.proof.fingerprint import fingerprint
from frostline.plan.presets import schedule_for
from frostline.training.phase_state import SavedPhases
from frostline.training.phased import PhasedRun
from frostline.training.phased_model import PhasedModel, RunFacts, steps_per_epoch


class LightningPhases:
    """A schedule in force in the fits of one LightningModule that has one optimizer.

    Args:
        module: The LightningModule; all trains in it that trains in any phase, until fit begins.
        given: What `schedule_for` takes.
        seed: Of what is drawn.

    Attributes:
        run: The schedule in force.
    """

    def __init__(self, module: Any, given: Any, seed: int) -> None:
        self.run = PhasedRun(PhasedModel(module, schedule_for(module, given), "eval"), None)
        self._module = module
        self._seed = seed
        self._noted = 0  # the optimizer step that was noted last

    def begin(self, trainer: Any, state: dict[str, Any] | None) -> None:
        """Put the flags of the next step in force.

        Args:
            trainer: Lightning's Trainer.
            state: What the checkpoint that fit goes on from says of the schedule; None for a fit from the start.

        Raises:
            PlanError: If the schedule does not fit the run, or the checkpoint is of another.
            SettingsError: If there is not just one optimizer.
        """
        if len(trainer.optimizers) != 1:
            raise SettingsError(f"A schedule needs one optimizer; the module has {len(trainer.optimizers)}.")
        optimizer = inner_optimizer(trainer.optimizers[0])
        facts = RunFacts(
            seed=self._seed,
            rate=max(float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups),
            steps=int(trainer.estimated_stepping_batches),
            per_epoch=steps_per_epoch(trainer.train_dataloader, trainer.accumulate_grad_batches),
            evaluates=bool(trainer.enable_validation),
            tells=trainer.is_global_zero,
        )
        saved = None if state is None else SavedPhases.from_dict(state, self.run.schedule, "the checkpoint")
        # Lightning steps its schedulers before it calls a callback again, and they know the optimizer's own groups.
        optimizer.register_step_post_hook(lambda *_: self.run.rates.take_away())
        self.run.begin(facts, optimizer, saved, trainer.global_step)
        self.run.start_proof(fingerprint(self._module))
        self._noted = trainer.global_step

    def before_batch(self, trainer: Any) -> None:
        """Begin a phase where the one before is over."""
        self.run.before_step(trainer.global_step, trainer.optimizers[0])

    def after_batch(self, trainer: Any) -> None:
        """Note a step, if one was taken, and stop once the last phase is over."""
        if trainer.global_step > self._noted:
            self._noted = trainer.global_step
            self.run.after_step(trainer.global_step)
        trainer.should_stop = trainer.should_stop or self.run.is_over

    def after_validation(self, trainer: Any) -> None:
        """Note what a validation gave, and stop once the last phase is over."""
        if not trainer.sanity_checking:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.run.note_evaluation(trainer.global_step, metrics)
            trainer.should_stop = trainer.should_stop or self.run.is_over
