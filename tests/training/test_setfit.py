"""The callback in a Trainer that hands over SetFit's model, which is no module, and the encoder that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import transformers

import frostline as fl
from frostline.errors import ModelError
from tests.models import names_of, trainable
from tests.training.pretrained import options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    from tests.training.pretrained import Batch


class SetFitModel:
    """A body and a head; no module."""

    def __init__(self, body: PreTrainedModel) -> None:
        self.model_body = body


class SetFitTrainer(transformers.Trainer):
    """Calls its callbacks as SetFit does: once more at the end of its own making, with both models."""

    def __init__(self, model: SetFitModel, *arguments: Any, callbacks: list[Any], **options: Any) -> None:
        super().__init__(model.model_body, *arguments, **options)
        handler = self.callback_handler

        def call_event(event: str, args: Any, state: Any, control: Any, **given: Any) -> Any:
            for callback in handler.callbacks:
                told = {"model": model, "st_model": handler.model, "optimizer": handler.optimizer, **given}
                control = getattr(callback, event)(args, state, control, **told) or control
            return control

        handler.call_event = call_event  # type: ignore[method-assign]
        for callback in callbacks:
            self.add_callback(callback)
        handler.on_init_end(self.args, self.state, self.control)


def test_the_body_is_frozen_and_proved(tmp_path: Path, make: Callable[[], PreTrainedModel], batch: Batch) -> None:
    callback = fl.FreezeCallback("embeddings, layers[0]")
    arguments = transformers.TrainingArguments(**options(tmp_path))
    body = make()
    trainer = SetFitTrainer(SetFitModel(body), arguments, train_dataset=batch, callbacks=[callback])
    assert trainable(body) == names_of(body, "bert.encoder.layer.1.", "bert.pooler.", "classifier.")
    trainer.train()
    assert callback.proof is not None
    assert callback.proof.ok
    assert [unit.verdict for unit in callback.proof.units] == ["frozen", "frozen", "moved", "moved", "moved"]
    assert callback.first_step is not None
    assert callback.first_step.ok


def test_a_trainer_without_any_module() -> None:
    with pytest.raises(ModelError, match="The model is <"):
        fl.FreezeCallback("backbone").on_init_end(None, None, None, model=object())  # type: ignore[arg-type]
