"""What a Trainer says of its engine: nothing untrue, and not nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import TrainerCallback

import frostline as fl
from tests.dropin import rows
from tests.dropin.pairs import assert_profits, assert_same_predictions, compared
from tests.dropin.test_architectures import bert_for, chosen, nested
from tests.dropin.test_losses import Beneath
from tests.dropin.test_user_code import Stream
from tests.dropin.trunks import Classifier, bert_classifier
from tests.training import tokens
from tests.training.beside import HELD_OUT, ROWS, assert_alike, both

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("heard")


def engine_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if message.startswith("Engine: ")]


def trainer_of(folder: Path, model: Any, **changes: Any) -> fl.Trainer:
    return fl.Trainer(model, tokens.arguments(folder, store="memory", **changes), tokens.collate, ROWS, HELD_OUT)


def test_a_loss_that_calls_the_trunk_claims_no_replay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every call is a plain one."""
    ours = compared(tmp_path, bert_classifier, Beneath)
    (line,) = engine_lines(caplog)
    assert line == "Engine: the plain path; a step does not call the forward of the model."
    assert ours.engine_report is None


def test_a_second_run_that_replays_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of(tmp_path, bert_classifier())
    for _ in range(2):
        caplog.clear()
        trainer.train()
        (line,) = engine_lines(caplog)
        assert "nothing is stored" not in line
        assert "replay from layer 2" in line
        assert_profits(trainer)
        assert trainer.engine_report is not None
        assert "nothing is stored" not in trainer.engine_report.explain()


def test_a_second_run_of_a_frozen_trunk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of(tmp_path, Classifier("trunk"))
    trainer.evaluate()
    for _ in range(3):
        trainer.train()
        trainer.evaluate()
    assert len(engine_lines(caplog)) == 3
    assert not [line for line in engine_lines(caplog) if "nothing is stored" in line]


@pytest.mark.parametrize("kind", ["stream", "own", "columns"])
def test_no_store_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Where steps fill the store, nothing is in it when the line is said."""

    class Own(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(ROWS)

        def __getitem__(self, row: int) -> Any:
            return ROWS[row]

    sets: dict[str, Callable[[], Any]] = {"stream": Stream, "own": Own, "columns": lambda: ROWS}
    data = sets[kind]()
    for turn in range(2):
        args = tokens.arguments(tmp_path / str(turn), store="memory", max_steps=5)
        fl.Trainer(bert_classifier(), args, tokens.collate, data).train()
    assert len(engine_lines(caplog)) == 2
    assert not [message for message in caplog.messages if "(0 bytes)" in message]


class Dict(Classifier):
    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return {name: value for name, value in super().answer(pooled, labels).items() if value is not None}


class Tuple(Classifier):
    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(pooled, labels).to_tuple()


@pytest.mark.parametrize("kind", [Dict, Tuple])
def test_dicts_and_tuples_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type[Classifier]) -> None:
    assert_profits(compared(tmp_path, kind))
    assert not [message for message in caplog.messages if "no logits" in message]


def test_a_callback_that_freezes_more_is_not_taken_for_a_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Freezes(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 4:
                model.bert.encoder.layer[2].requires_grad_(requires_grad=False)

    compared(tmp_path, bert_classifier, None, lambda: {"callbacks": [Freezes()]})
    assert not [message for message in caplog.messages if "frozen_mode='train'" in message]


class OwnStep:
    """It does the whole step itself."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        trainer: Any = self
        model.train()
        loss: Tensor = model(**trainer._prepare_inputs(inputs)).loss
        trainer.accelerator.backward(loss)
        return loss.detach()


def test_a_step_of_one_s_own_has_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = compared(tmp_path, bert_classifier, OwnStep)
    (line,) = engine_lines(caplog)
    stored = ours.engine_report is not None and ours.engine_report.rows > 0
    assert ("replay from" in line) == stored


def test_nested_inputs_have_their_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compared(tmp_path, partial(bert_for, "MultipleChoice"), given=rows.given(chosen, nested))
    (line,) = engine_lines(caplog)
    assert "replay from layer 2" in line


def test_noise_on_frozen_embeddings_has_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frozen embeddings stay in eval mode, where NEFTune adds nothing."""
    trainer_of(tmp_path, bert_classifier(), neftune_noise_alpha=5.0).train()
    assert len([message for message in caplog.messages if "neftune" in message.lower()]) == 1


def test_a_model_of_which_nothing_trains_is_evaluated(tmp_path: Path) -> None:
    ours, theirs = (
        kind(
            model=bert_classifier().requires_grad_(requires_grad=False),
            args=tokens.arguments(tmp_path / kind.__module__),
            data_collator=tokens.collate,
            eval_dataset=HELD_OUT,
        )
        for kind in (fl.Trainer, transformers.Trainer)
    )
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-4)
    assert_same_predictions(ours, theirs)


def test_one_line_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = both(tmp_path, make=bert_classifier, eval_strategy="epoch")
    assert_alike(ours, theirs)
    assert_profits(ours)
    (line,) = engine_lines(caplog)
    assert "replay from layer 2" in line
    assert not [message for message in caplog.messages if message.startswith("Plain path")]
