"""The engine around a loop of one's own: the same losses, the frozen part computed once, the model as before."""

from __future__ import annotations

import copy
import inspect
import pickle
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from datasets import Dataset
from torch import nn

import frostline as fl
from frostline.engine.behind_mask import PaddingRead
from frostline.errors import ModelError, SettingsError
from frostline.training.fast import called_within
from tests.models import checkpoint_activations
from tests.training import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = tokens.rows()


@pytest.fixture(autouse=True)
def _no_accelerator() -> Iterator[None]:
    """Each Accelerator of a process has the precision of its first one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def frozen(**changes: Any) -> Any:
    model = tokens.model(**changes)
    fl.freeze(model, tokens.LOWER)
    return model.train()


def batches(epochs: int = 3) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled anew in each epoch."""
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        places = torch.randperm(len(ROWS), generator=order).tolist()
        for begin in range(0, len(ROWS), 8):
            yield tokens.collate([ROWS[place] for place in places[begin : begin + 8]])


def loop(model: Any, loss_of: Callable[[Any, Any], torch.Tensor] | None = None, epochs: int = 3) -> list[float]:
    """Train, and give the losses."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3, eps=1e-5)
    losses = []
    for batch in batches(epochs):
        loss = loss_of(model, batch) if loss_of is not None else model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def assert_same(
    make: Callable[[], Any] = frozen, loss_of: Callable[[Any, Any], torch.Tensor] | None = None, **options: Any
) -> Any:
    """The same losses and weights with and without the block; gives its report."""
    ours, theirs = make(), make()
    with fl.fast(ours, **{"store": "memory"} | options) as engine:
        own = loop(ours, loss_of)
    assert "forward" not in vars(called_within(ours))
    assert own == pytest.approx(loop(theirs, loss_of), abs=1e-5)
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-4, rtol=0) for one, other in pairs)
    return engine.report


def test_a_loop_of_one_s_own(heard: pytest.LogCaptureFixture) -> None:
    report = assert_same()
    assert report.check.boundary == "layer 2"
    assert report.check.paths.packing is not None
    assert report.rows == len(ROWS)
    assert [line for line in heard.messages if line.startswith("Engine: replay from layer 2, padding-free")]


def test_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for a batch, 50 passes cost" in str(assert_same(store="auto", passes=50))
    assert assert_same(store="off").choice.where == "nowhere"


def test_a_store_on_disk_serves_again(tmp_path: Path) -> None:
    assert assert_same(store="disk", store_dir=tmp_path).rows == len(ROWS)
    with fl.fast(model := frozen(), store="disk", store_dir=tmp_path) as engine:
        model(**next(batches())).loss.backward()
        assert engine.report is not None
        assert engine.report.rows == len(ROWS)


def test_a_store_that_is_full() -> None:
    report = assert_same(store_budget="4kb")
    assert 0 < report.rows < len(ROWS)


def test_accumulated_gradients_and_evaluation_in_between() -> None:
    def train(model: Any) -> list[Any]:
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3, eps=1e-5)
        seen = []
        for step, batch in enumerate(batches()):
            (model(**batch).loss / 2).backward()
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
            if step % 5 == 4:
                model.eval()
                with torch.no_grad():
                    seen += model(**batch).logits.flatten().tolist()
                model.train()
        return seen

    ours, theirs = frozen(), frozen()
    with fl.fast(ours, store="memory"):
        own = train(ours)
    assert own == pytest.approx(train(theirs), abs=1e-5)


def test_what_is_seen_of_the_model_stays() -> None:
    model = frozen()
    batch = next(batches())
    signature = inspect.signature(model.forward)
    head = model.get_parameter("classifier.weight")
    with fl.fast(model, store="memory"):
        model(**batch).loss.backward()
        assert inspect.signature(model.forward) == signature
        copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        before = model(**batch).logits
        with torch.no_grad():
            head.mul_(2)  # of the model, not of its copies
        for other in copies:
            assert torch.allclose(other(**batch).logits, before, atol=1e-5)
        assert not torch.allclose(model(**batch).logits, before, atol=1e-2)
    assert "forward" not in vars(model)


def test_what_was_wrapped_within_stays_and_is_plain_afterwards() -> None:
    model, accelerator = frozen(), Accelerator(cpu=True, mixed_precision="bf16")
    batch = next(batches())
    with fl.fast(model, store="memory"):
        model = accelerator.prepare(model)
        model(**batch).loss.backward()
    assert "forward" in vars(model)
    assert model(**batch).logits.dtype == torch.float32
    assert torch.allclose(model(**batch).logits, frozen()(**batch).logits, atol=0.1)


def test_what_was_wrapped_stays_after_an_error_and_can_be_taken_off_within() -> None:
    model, accelerator = frozen(), Accelerator(cpu=True, mixed_precision="bf16")
    batch = next(batches())
    with suppress(ZeroDivisionError), fl.fast(model, store="memory"):
        model = accelerator.prepare(model)
        raise ZeroDivisionError
    assert "forward" in vars(model)
    other = accelerator.prepare(frozen())
    with fl.fast(other, store="memory"):
        other(**batch).loss.backward()
        vars(other).pop("forward")
    assert torch.allclose(other(**batch).logits, frozen()(**batch).logits, atol=0.1)


@pytest.mark.parametrize("within", [True, False])
def test_accelerate(within: bool) -> None:
    def train(model: Any, *, fast: bool) -> list[float]:
        accelerator = Accelerator(cpu=True)
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3, eps=1e-5)
        if not within:
            model, optimizer = accelerator.prepare(model, optimizer)
        losses = []
        with fl.fast(model, store="memory") if fast else nullcontext() as engine:
            if within:
                model, optimizer = accelerator.prepare(model, optimizer)
            for batch in batches():
                loss = model(**batch).loss
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
        assert engine is None or (engine.report is not None and engine.report.rows == len(ROWS))
        return losses

    assert train(frozen(), fast=True) == pytest.approx(train(frozen(), fast=False), abs=1e-5)


def test_autocast_has_a_store_of_its_own(tmp_path: Path) -> None:
    """What accelerate computes in bfloat16 is none for a loop in single precision."""
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare(frozen(hidden_size=64, intermediate_size=128))
    keys = []
    for model in (prepared, frozen(hidden_size=64, intermediate_size=128)):
        with fl.fast(model, store="disk", store_dir=tmp_path) as engine:
            model(**next(batches())).loss.backward()
            assert engine.report is not None
            assert engine.report.rows == 8, engine.report
        keys.append(sorted(folder.name for folder in tmp_path.iterdir()))
    assert len(keys[1]) == 2


def test_a_trainer_of_transformers(tmp_path: Path) -> None:
    """It reads the forward's signature to leave out columns that the model does not take."""
    trained = []
    for fast in (True, False):
        model = frozen()
        arguments = transformers.TrainingArguments(**tokens.options(tmp_path / str(fast)))
        data = Dataset.from_list([row | {"text": "abc"} for row in ROWS])
        with fl.fast(model, store="memory") if fast else nullcontext() as engine:
            trainer = transformers.Trainer(model, arguments, tokens.collate, data)
            trainer.train()
        assert engine is None or (engine.report is not None and engine.report.rows == len(ROWS))
        trained.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert trained[0] == pytest.approx(trained[1], abs=1e-4)


def mean_of_real(model: Any, batch: Any) -> torch.Tensor:
    """A loss of the hidden states of all real tokens."""
    hidden = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    weight = batch["attention_mask"].unsqueeze(-1)
    logits = model.classifier((hidden * weight).sum(1) / weight.sum(1))
    return nn.functional.cross_entropy(logits, batch["labels"])


def mean_of_all(model: Any, batch: Any) -> torch.Tensor:
    """Padding counts as well."""
    hidden = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    return nn.functional.cross_entropy(model.classifier(hidden.mean(1)), batch["labels"])


@pytest.mark.parametrize("loss_of", [mean_of_real, mean_of_all])
def test_a_backbone_that_is_called_by_itself(loss_of: Callable[[Any, Any], torch.Tensor]) -> None:
    ours, theirs = frozen(), frozen()
    with fl.fast(ours.bert, store="memory") as engine:
        own = loop(ours, loss_of)
    assert own == pytest.approx(loop(theirs, loss_of), abs=1e-5)
    assert engine.report is not None
    assert engine.report.check.boundary == ("layer 2" if loss_of is mean_of_real else None)


def test_a_loss_that_reads_padding_later_is_an_error() -> None:
    """Its values behind the mask were not computed, and the step cannot be taken back."""
    model = frozen()
    with fl.fast(model.bert, store="memory"):
        for batch in batches(1):
            mean_of_real(model, batch).backward()  # type: ignore[no-untyped-call]
        with pytest.raises(PaddingRead, match=r"Call the model outside of fl\.fast"):
            mean_of_all(model, next(batches())).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_within_which_nothing_is_answered(wrap: Any, heard: pytest.LogCaptureFixture) -> None:
    model = frozen()
    with fl.fast(wrap(model)) as engine:
        assert "forward" not in vars(model)
    assert engine.report is None
    assert heard.messages[-1].startswith("Engine: the plain path; ")


def is_checkpointed(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_checkpointing_is_switched_off_for_the_block(heard: pytest.LogCaptureFixture) -> None:
    def make() -> Any:
        model = frozen()
        checkpoint_activations(model)
        return model

    report = assert_same(make)
    assert report.rows == len(ROWS)
    assert "Gradient checkpointing: switched off" in heard.text
    model = make()
    with fl.fast(model, store="memory"):
        model(**next(batches())).loss.backward()
    assert is_checkpointed(model)


def test_what_cannot_be_tried_is_said_with_checkpointing_too(heard: pytest.LogCaptureFixture) -> None:
    model = frozen()
    checkpoint_activations(model)
    with fl.fast(model, store="memory"):
        model(**next(batches()), output_hidden_states=True).loss.backward()
        assert is_checkpointed(model)
    assert "Engine: the plain path; output_hidden_states was given." in heard.messages


def test_checkpointing_stays_where_nothing_is_frozen() -> None:
    model = tokens.model().train()
    checkpoint_activations(model)
    with fl.fast(model, store="memory") as engine:
        model(**next(batches())).loss.backward()
        assert is_checkpointed(model)
    assert engine.report is not None
    assert engine.report.check.boundary is None


class Holder(nn.Module):
    """As a LightningModule is: it takes steps, and has parts of which one is a model."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = frozen().bert
        self.head = nn.Linear(16, 2)

    def training_step(self, batch: Any) -> torch.Tensor:
        hidden = self.trunk(batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        return nn.functional.cross_entropy(self.head(hidden), batch["labels"])


def test_the_one_model_inside_a_module_that_takes_steps() -> None:
    def make() -> Holder:
        torch.manual_seed(0)
        return Holder()

    report = assert_same(make, lambda model, batch: model.training_step(batch))
    assert report.rows == len(ROWS)


def test_a_model_that_is_never_called(heard: pytest.LogCaptureFixture) -> None:
    with fl.fast(frozen()) as engine:
        pass
    assert engine.report is None
    assert "Engine: the plain path; the forward of the model was not called in training." in heard.messages


def test_flags_that_change_within() -> None:
    """A layer that is thawed in the middle trains from then on."""

    def train(model: Any) -> list[float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-5)
        losses = []
        for step, batch in enumerate(batches()):
            if step == 7:
                model.bert.encoder.layer[1].requires_grad_(requires_grad=True)
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    ours, theirs = frozen(), frozen()
    with fl.fast(ours, store="memory") as engine:
        own = train(ours)
    assert own == pytest.approx(train(theirs), abs=1e-5)
    assert engine.report is not None
    assert engine.report.check.boundary == "layer 1"


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match="Load it first"), fl.fast("bert-base-uncased"):  # type: ignore[arg-type]
        pass
    with pytest.raises(SettingsError, match="store='ram'"), fl.fast(frozen(), store="ram"):  # type: ignore[arg-type]
        pass
    model = frozen()
    with fl.fast(model), pytest.raises(ModelError, match="is in a block of"), fl.fast(model):
        pass
    with fl.fast(model, store="memory"):  # free again
        model(**next(batches())).loss.backward()


def test_an_error_in_the_loop_leaves_the_model_as_it_was() -> None:
    model = frozen()
    with suppress(ZeroDivisionError), fl.fast(model, store="memory"):
        model(**next(batches())).loss.backward()
        raise ZeroDivisionError
    assert "forward" not in vars(model)


def test_a_trainer_of_ours_within(tmp_path: Path) -> None:
    model = frozen()
    with fl.fast(model, store="memory"):
        ours = fl.Trainer(model, tokens.arguments(tmp_path / "ours"), tokens.collate, ROWS)
        ours.train()
    theirs = transformers.Trainer(
        frozen(), transformers.TrainingArguments(**tokens.options(tmp_path / "theirs")), tokens.collate, ROWS
    )
    theirs.train()
    own, other = ([log["loss"] for log in one.state.log_history if "loss" in log] for one in (ours, theirs))
    assert own == pytest.approx(other, abs=1e-4)
