"""The Trainer: what it is told, what trains by it, and that all else is as upstream."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import transformers
from torch import nn
from transformers import HfArgumentParser

import frostline as fl
from frostline.errors import PlanError, SelectorError, SettingsError
from frostline.training.padding import PaddedAtOnce
from tests.training import tiny
from tests.training.pretrained import FROZEN, LINE, adapted, arguments, options, same, state_of, trains

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.training.pretrained import Batch


# What is said to the Trainer


def test_everything_by_position(tmp_path: Path, make: Any, batch: Batch) -> None:
    model, collator = make(), transformers.DefaultDataCollator()
    trainer = fl.Trainer(model, arguments(tmp_path), collator, batch, batch[:4], freeze=LINE)
    assert trainer.model is model
    assert trainer.data_collator is collator
    assert trainer.eval_dataset == batch[:4]
    assert FROZEN not in trains(model)


def test_what_the_upstream_trainer_does_not_take_is_refused(tmp_path: Path, make: Any) -> None:
    with pytest.raises(TypeError, match="nosuch"):
        fl.Trainer(make(), arguments(tmp_path), nosuch=1)


def test_the_plan_as_options_of_a_command(tmp_path: Path) -> None:
    parser = HfArgumentParser(cast("Any", fl.TrainingArguments))
    (parsed,) = parser.parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--freeze", LINE, "--frozen_mode", "train", "--learning_rate", "0.5"]
    )
    assert (parsed.freeze, parsed.train_only, parsed.frozen_mode, parsed.learning_rate) == (LINE, None, "train", 0.5)
    (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--train_only", "head"])
    assert (parsed.freeze, parsed.train_only, parsed.frozen_mode) == (None, "head", "eval")
    assert parsed.to_dict()["train_only"] == "head"


def test_the_engine_s_settings_as_options_of_a_command(tmp_path: Path) -> None:
    parser = HfArgumentParser(cast("Any", fl.TrainingArguments))
    names = ("engine", "store", "store_dir", "store_budget", "store_dtype", "padding_free")
    (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path)])
    assert [getattr(parsed, name) for name in names] == [True, "auto", None, None, None, True]
    words = ["--store", "disk", "--store_dir", "here", "--store_budget", "4GB", "--store_dtype", "bf16"]
    (parsed,) = parser.parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), *words, "--no_padding_free", "--no_engine"]
    )
    assert [getattr(parsed, name) for name in names] == [False, "disk", "here", "4GB", "bf16", False]


@pytest.mark.parametrize("changes", [{"store": "nowhere"}, {"store_budget": "many"}, {"store_dtype": "int8"}])
def test_settings_of_the_engine_that_are_none(tmp_path: Path, make: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=str(*changes.values())):
        fl.Trainer(make(), arguments(tmp_path, **changes))


def test_an_unknown_mode_is_refused_by_the_parser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        HfArgumentParser(cast("Any", fl.TrainingArguments)).parse_args_into_dataclasses(
            ["--output_dir", str(tmp_path), "--frozen_mode", "nosuch"]
        )
    assert "invalid choice" in capsys.readouterr().err


def test_the_same_by_keyword_and_by_argument(tmp_path: Path, make: Any) -> None:
    by_keyword = fl.Trainer(make(), arguments(tmp_path), freeze=LINE)
    by_argument = fl.Trainer(make(), arguments(tmp_path, freeze=LINE))
    by_both = fl.Trainer(make(), arguments(tmp_path, freeze=LINE), freeze=LINE)
    plain = fl.Trainer(make(), arguments(tmp_path))
    assert trains(by_keyword.model) == trains(by_argument.model) == trains(by_both.model) != trains(plain.model)


def test_arguments_of_the_upstream_class_do(tmp_path: Path, make: Any) -> None:
    trainer = fl.Trainer(make(), transformers.TrainingArguments(**options(tmp_path)), train_only="head")
    assert trains(trainer.model) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("fields", "keywords", "phrase"),
    [
        ({"freeze": "head"}, {"freeze": "backbone"}, "freeze='backbone' was given to the Trainer, and freeze='head'"),
        ({"train_only": "head"}, {"train_only": "layers[1]"}, "was given to the Trainer"),
        ({"train_only": "head"}, {"freeze": "backbone"}, "either freeze or train_only"),
        ({}, {"freeze": "backbone", "train_only": "head"}, "either freeze or train_only"),
        ({}, {"freeze": "backbone", "frozen_mode": "nosuch"}, "frozen_mode='nosuch'"),
    ],
)
def test_a_plan_that_contradicts_itself(
    tmp_path: Path, make: Any, fields: dict[str, Any], keywords: dict[str, Any], phrase: str
) -> None:
    with pytest.raises(PlanError, match=phrase):
        fl.Trainer(make(), arguments(tmp_path, **fields), **keywords)


def test_a_selector_that_matches_nothing(tmp_path: Path, make: Any) -> None:
    with pytest.raises(SelectorError, match="layers"):
        fl.Trainer(make(), arguments(tmp_path), freeze="layers[7]")


@pytest.mark.parametrize("selector", ["all", "backbone, head"])
def test_nothing_left_to_train(tmp_path: Path, make: Any, selector: str) -> None:
    with pytest.raises(PlanError, match=rf"The plan 'freeze {selector}' leaves nothing to train"):
        fl.Trainer(make(), arguments(tmp_path), freeze=selector)
    with pytest.raises(PlanError, match="leaves nothing to train"):
        transformers.Trainer(
            make(), transformers.TrainingArguments(**options(tmp_path)), callbacks=[fl.FreezeCallback(selector)]
        )


@pytest.mark.parametrize("callbacks", [None, [fl.FreezeCallback()]])
def test_a_model_that_is_frozen_throughout_can_be_evaluated_and_not_trained(
    tmp_path: Path, make: Any, batch: Batch, callbacks: Any
) -> None:
    model, rows = make(), cast("Any", batch)
    model.requires_grad_(False)
    kind = transformers.Trainer if callbacks else fl.Trainer
    trainer = kind(model, arguments(tmp_path), train_dataset=batch, eval_dataset=batch, callbacks=callbacks)
    theirs = plain_trainer(tmp_path / "plain", make(), batch)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate(rows)["eval_loss"], abs=1e-5)
    assert torch.allclose(
        torch.tensor(trainer.predict(rows).predictions), torch.tensor(theirs.predict(rows).predictions), atol=1e-5
    )
    with pytest.raises(PlanError, match="The flags of the model leave nothing to train: every parameter is frozen"):
        trainer.train()


def test_adapters_that_were_loaded_for_inference(tmp_path: Path, make: Any, batch: Batch) -> None:
    adapted(make(), init_lora_weights=False).save_pretrained(tmp_path / "adapter")

    def loaded() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            return pytest.importorskip("peft").PeftModel.from_pretrained(make(), tmp_path / "adapter")

    rows: Any = batch
    trainer = fl.Trainer(loaded(), arguments(tmp_path), train_dataset=rows)
    theirs = plain_trainer(tmp_path / "plain", loaded(), batch)
    assert torch.allclose(
        torch.tensor(trainer.predict(rows).predictions), torch.tensor(theirs.predict(rows).predictions), atol=1e-5
    )
    with pytest.raises(PlanError, match="nothing to train"):
        trainer.train()


# What trains


def test_what_is_frozen_stays_and_the_rest_moves(tmp_path: Path, make: Any, batch: Batch) -> None:
    model = make()
    before = state_of(model)
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch, freeze=LINE)
    trainer.train()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == trains(model)
    assert trainer.proof is not None
    assert trainer.proof.ok
    assert {tensor.name for tensor in trainer.proof.tensors if tensor.moved} == moved


def test_train_only(tmp_path: Path, make: Any, batch: Batch) -> None:
    trainer = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, train_only="head, layers[1] , ~bias")
    assert trains(trainer.model)
    assert all("bias" not in name and ("layer.1" in name or "classifier" in name) for name in trains(trainer.model))
    trainer.train()
    assert trainer.proof is not None
    assert {tensor.name for tensor in trainer.proof.tensors if tensor.moved} == trains(trainer.model)


def test_the_optimizer_holds_what_trains_and_nothing_else(tmp_path: Path, make: Any, batch: Batch) -> None:
    model = make()
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch, freeze="backbone, ~bias")
    optimizer = trainer.create_optimizer()
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for name, parameter in model.named_parameters() if name in trains(model)}
    assert 0 < len(held) < len(list(model.parameters()))


def test_what_was_frozen_by_hand_is_kept_and_proven(tmp_path: Path, make: Any, batch: Batch) -> None:
    model = make()
    model.bert.embeddings.requires_grad_(False)
    before = state_of(model)
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch)
    model.train()
    assert not model.bert.embeddings.training
    assert model.bert.encoder.layer[0].training
    trainer.train()
    assert torch.equal(
        before["bert.embeddings.word_embeddings.weight"], model.bert.embeddings.word_embeddings.weight.detach()
    )
    assert trainer.proof is not None
    assert sum(tensor.frozen for tensor in trainer.proof.tensors) >= 5
    trainer.save_model(str(tmp_path / "saved"))
    assert fl.Plan.load(tmp_path / "saved") == fl.Plan(freeze="embeddings")


def test_each_new_model_of_model_init_is_frozen(tmp_path: Path, make: Any, batch: Batch) -> None:
    made: list[nn.Module] = []

    def model_init() -> nn.Module:
        made.append(make())
        return made[-1]

    trainer = fl.Trainer(model_init=model_init, args=arguments(tmp_path), train_dataset=batch, freeze=LINE)
    trainer.train()
    assert len(made) == 2  # one when the Trainer is made, one when it trains
    assert trainer.model is made[-1]
    assert FROZEN not in trains(made[0]) | trains(made[1])
    assert trainer.proof is not None
    assert trainer.proof.ok
    assert trainer.optimizer is not None
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(made[-1].get_parameter(name)) for name in trains(made[-1])}


# What has no effect is said


def told(heard: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [line for line in heard.messages if line.startswith(word)]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_noise_on_embeddings_that_are_frozen(
    tmp_path: Path, make: Any, batch: Batch, heard: pytest.LogCaptureFixture, mode: Any
) -> None:
    args = arguments(tmp_path, neftune_noise_alpha=5, num_train_epochs=1)
    trainer = fl.Trainer(make(), args, train_dataset=batch, freeze=LINE, frozen_mode=mode)
    trainer.train()
    line = (
        "NEFTune: neftune_noise_alpha=5 adds no noise, as the embeddings are frozen and stay in eval mode. "
        "With frozen_mode='train' it does."
    )
    assert told(heard, "NEFTune") == ([line] if mode == "eval" else [])


def test_noise_on_embeddings_that_train(
    tmp_path: Path, make: Any, batch: Batch, heard: pytest.LogCaptureFixture
) -> None:
    args = arguments(tmp_path, neftune_noise_alpha=5, num_train_epochs=1)
    fl.Trainer(make(), args, train_dataset=batch, freeze="layers[0]").train()
    assert told(heard, "NEFTune") == []


def test_a_second_stage_on_what_the_first_one_froze(
    tmp_path: Path, make: Any, batch: Batch, heard: pytest.LogCaptureFixture
) -> None:
    model = make()
    args = arguments(tmp_path, num_train_epochs=1)
    fl.Trainer(model, args, train_dataset=batch, freeze="backbone").train()
    assert told(heard, "Plan") == []
    second = fl.Trainer(model, args, train_dataset=batch, freeze="embeddings")
    second.train()
    assert trains(model) == {"classifier.weight", "classifier.bias"}
    (line,) = told(heard, "Plan")
    assert line == (
        "Plan: an earlier plan froze layers[:], pooler, which 'freeze embeddings' does not name: it stays frozen. "
        "To train it, give train_only='layers[:], pooler, head' instead."
    )
    second.train()
    assert len(told(heard, "Plan")) == 1
    third = fl.Trainer(model, args, train_dataset=batch, train_only="layers[:], pooler, head")
    third.train()
    assert len(told(heard, "Plan")) == 1
    assert {name for name in trains(model) if "embeddings" not in name} == trains(model)
    assert len(trains(model)) == 36


def test_what_was_thawed_since_is_not_told_of(
    tmp_path: Path, make: Any, batch: Batch, heard: pytest.LogCaptureFixture
) -> None:
    model = make()
    fl.freeze(model, "backbone")
    model.bert.requires_grad_(True)
    fl.Trainer(model, arguments(tmp_path, num_train_epochs=1), train_dataset=batch, freeze="embeddings").train()
    with fl.freeze(model, "backbone"):
        pass
    fl.Trainer(model, arguments(tmp_path, num_train_epochs=1), train_dataset=batch, freeze="embeddings").train()
    assert told(heard, "Plan") == []


# The same as upstream


def plain_trainer(folder: Path, model: nn.Module, batch: Batch) -> transformers.Trainer:
    return transformers.Trainer(model, transformers.TrainingArguments(**options(folder)), train_dataset=batch)


def test_without_a_plan_it_trains_as_upstream_bit_by_bit(tmp_path: Path, make: Any, batch: Batch) -> None:
    ours, theirs = make(), make()
    fl.Trainer(ours, arguments(tmp_path / "a"), train_dataset=batch, engine=False).train()
    plain_trainer(tmp_path / "b", theirs, batch).train()
    assert same(ours.state_dict(), theirs.state_dict())


def test_operations_are_counted_as_upstream_for_each_model(tmp_path: Path, make: Any, batch: Batch) -> None:
    ours, theirs = fl.Trainer(make(), arguments(tmp_path)), plain_trainer(tmp_path, make(), batch)
    ids = torch.ones(3, 7, dtype=torch.int64)
    for inputs in ({"input_ids": ids}, {"input_ids": ids[:2]}, {"input_ids": ids[:0]}, {"other": ids}):
        assert ours.floating_point_ops(inputs) == theirs.floating_point_ops(inputs)
    ours.model = theirs.model = nn.Linear(2, 2)
    assert ours.floating_point_ops({"input_ids": ids}) == theirs.floating_point_ops({"input_ids": ids}) == 0


def test_loaders_pad_at_once_and_the_collator_stays_the_user_s(tmp_path: Path, make: Any, batch: Batch) -> None:
    collate = transformers.DataCollatorWithPadding(cast("Any", tiny.wordpiece()))
    trainer = fl.Trainer(make(), arguments(tmp_path), data_collator=collate, train_dataset=batch, eval_dataset=batch)
    for loader in (
        trainer.get_train_dataloader(),
        trainer.get_eval_dataloader(),
        trainer.get_test_dataloader(cast("Any", batch)),
    ):
        made = cast("Any", loader.collate_fn)
        assert type(getattr(made, "data_collator", made)) is PaddedAtOnce
    assert trainer.data_collator is collate
    off = fl.Trainer(make(), arguments(tmp_path), data_collator=collate, train_dataset=batch, engine=False)
    made = cast("Any", off.get_train_dataloader().collate_fn)
    assert getattr(made, "data_collator", made) is collate


def test_in_train_mode_it_trains_as_upstream_with_flags_set_by_hand(tmp_path: Path, make: Any, batch: Batch) -> None:
    ours, theirs = make(), make()
    off: Any = {"engine": False}  # packed rows draw other dropout
    fl.Trainer(ours, arguments(tmp_path / "a"), train_dataset=batch, freeze=LINE, frozen_mode="train", **off).train()
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(name in trains(ours))
    plain_trainer(tmp_path / "b", theirs, batch).train()
    assert same(ours.state_dict(), theirs.state_dict())
    eval_mode = make()
    fl.Trainer(eval_mode, arguments(tmp_path / "c"), train_dataset=batch, freeze=LINE).train()
    assert not same(ours.state_dict(), eval_mode.state_dict())  # dropout beneath the frost line is off


# The mode of what is frozen


@pytest.mark.parametrize("by", ["keyword", "field", "default"])
def test_frozen_modules_are_in_eval_mode_at_every_step(tmp_path: Path, make: Any, batch: Batch, by: str) -> None:
    model = make()
    mode = "eval" if by == "default" else "train"
    seen: dict[str, list[bool]] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, *_: seen.setdefault(name, []).append(module.training)

    for name in ("bert.embeddings.dropout", "bert.encoder.layer.0.output.dropout", "bert.encoder.layer.1", "dropout"):
        model.get_submodule(name).register_forward_hook(record(name))
    keywords: dict[str, Any] = {"frozen_mode": mode} if by == "keyword" else {}
    fields = {"frozen_mode": mode} if by == "field" else {}
    trainer = fl.Trainer(
        model, arguments(tmp_path, eval_strategy="epoch", **fields), None, batch, batch[:4], freeze=LINE, **keywords
    )
    trainer.train()
    steps, evaluations = 6, 2
    for name in ("bert.encoder.layer.1", "dropout"):
        assert seen[name].count(True) == steps
        assert len(seen[name]) == steps + evaluations
    for name in ("bert.embeddings.dropout", "bert.encoder.layer.0.output.dropout"):
        assert len(seen[name]) == steps + evaluations
        assert seen[name].count(True) == (0 if mode == "eval" else steps)


class WithStatistics(nn.Module):
    """A model with a BatchNorm, not of transformers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(160, 8)
        self.norm = nn.BatchNorm1d(8)
        self.top = nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.top(self.norm(self.words(input_ids).mean(dim=1)))  # (batch, 2)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_statistics_of_a_frozen_batch_norm(tmp_path: Path, batch: Batch, mode: Any) -> None:
    model = WithStatistics()
    before = state_of(model)
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch, freeze="words, norm.*", frozen_mode=mode)
    trainer.train()
    stayed = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert {"words.weight", "norm.weight", "norm.bias"} <= stayed
    assert statistics & stayed == (statistics if mode == "eval" else set())
    assert trainer.proof is not None
    assert trainer.proof.ok
