"""Steps of ``transformers.Trainer`` that have no public name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import transformers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class OpenTrainer(transformers.Trainer):
    """``transformers.Trainer`` whose steps without a public name are methods to override.

    In: all; of `clip_gradients`, transformers 5.3 and newer. Lost before: some time for the norm of gradients, which
    then is taken over all parameters.
    """

    def clip_gradients(self, model: Any) -> Any:
        """Clip the gradients of a model, and give their norm."""
        return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]

    def load_weights(self, checkpoint: str, model: nn.Module | None) -> None:
        """Load the weights of a checkpoint, into another model than the Trainer's where one is given."""
        super()._load_from_checkpoint(checkpoint, model)

    def load_best_weights(self) -> None:
        """Load the weights of the best checkpoint."""
        super()._load_best_model()

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return self.clip_gradients(model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_weights(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self.load_best_weights()


def prepared(trainer: transformers.Trainer, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a step hands to the model: tensors on its device.

    In: all.
    """
    return cast("dict[str, Any]", trainer._prepare_inputs(dict(inputs)))


def first_inputs(trainer: transformers.Trainer) -> dict[str, Any]:
    """Give what the forward is called with in a first step, on the device: a batch, and how many labels it has.

    In: all. The random states are left as they were drawn from.
    """
    steps = trainer.args.gradient_accumulation_steps
    batches, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), steps, trainer.args.device)
    counted = {"num_items_in_batch": count} if trainer.model_accepts_loss_kwargs and count is not None else {}
    return prepared(trainer, batches[0]) | counted
