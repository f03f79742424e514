"""Tasks and architectures of transformers, on batches as projects have them."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, BertConfig, MT5Config

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import bert_classifier
from tests.models import SIZES, tiny_config
from tests.training import tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OFF = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "activation_dropout")
_MORE_OFF = ("dropout_rate", "classifier_dropout", "seq_classif_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop")


def bert_for(task: str, layers: int = 2) -> Any:
    """A BERT of four layers for a task, its embeddings and two layers frozen."""
    values = tokens.model().config.to_dict()
    torch.manual_seed(0)
    model = getattr(transformers, f"BertFor{task}")(BertConfig(**values))
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:layers]):
        part.requires_grad_(requires_grad=False)
    return model


def classifier(kind: str, frozen: tuple[str, ...] = (), **changes: Any) -> Any:
    """A tiny classifier of an architecture; parameters are frozen whose name holds one of some parts."""
    config = tiny_config(kind, num_labels=2, **changes) if kind != "mt5" else MT5Config(**SIZES["t5"] | changes)
    for name in (*_OFF, *_MORE_OFF):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    return model


# Tasks


def tagged(count: int, seed: int) -> list[rows.Row]:
    made = rows.encoded(rows.texts(count, seed=seed))
    return [row | {"labels": [token % 2 for token in row["input_ids"]]} for row in made]


def answered(count: int, seed: int) -> list[rows.Row]:
    made = rows.encoded(rows.texts(count, 5, 24, seed=seed))
    spans = [(index % 4, index % 4 + 1) for index in range(count)]
    return [
        row | {"start_positions": start, "end_positions": end} for row, (start, end) in zip(made, spans, strict=True)
    ]


def masked(count: int, seed: int) -> list[rows.Row]:
    made = rows.encoded(rows.texts(count, seed=seed))
    for row in made:
        ids = row["input_ids"]
        row["labels"] = [token if place % 3 == 1 else -100 for place, token in enumerate(ids)]
        row["input_ids"] = [4 if place % 3 == 1 else token for place, token in enumerate(ids)]
    return made


def chosen(count: int, seed: int) -> list[rows.Row]:
    """Three texts per row, one of which is right: input_ids of shape (rows, 3, length)."""
    columns = [rows.texts(count, seed=seed + 10 * choice) for choice in range(3)]
    return [
        {"input_ids": list(choices), "attention_mask": [[1] * len(ids) for ids in choices], "labels": index % 3}
        for index, choices in enumerate(zip(*columns, strict=True))
    ]


def nested(batch: list[rows.Row], width: int = 0) -> dict[str, Any]:
    flat = rows.padded([row for rowset in batch for row in rows.encoded(rowset["input_ids"])], width=width)
    return {name: value.unflatten(0, (-1, 3)) for name, value in flat.items()} | {
        "labels": torch.tensor([row["labels"] for row in batch])
    }


def valued(count: int, seed: int) -> list[rows.Row]:
    made = rows.encoded(rows.texts(count, seed=seed))
    return [row | {"labels": index / count} for index, row in enumerate(made)]


TASKS: dict[str, dict[str, Any]] = {
    "TokenClassification": rows.given(tagged),
    "QuestionAnswering": rows.given(answered),
    "MaskedLM": rows.given(masked),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task(tmp_path: Path, task: str) -> None:
    trainer = compared(tmp_path, partial(bert_for, task), given=TASKS[task], eval_strategy="epoch")
    if task != "QuestionAnswering":  # whose loss reads the padding: rows of other widths are other rows
        assert_profits(trainer)


@pytest.mark.parametrize("layers", [0, 2, 4])
def test_multiple_choice(tmp_path: Path, layers: int) -> None:
    compared(tmp_path, partial(bert_for, "MultipleChoice", layers), given=rows.given(chosen, nested))


def test_multiple_choice_of_one_width(tmp_path: Path) -> None:
    given = rows.given(chosen, partial(nested, width=40))
    assert_profits(compared(tmp_path, partial(bert_for, "MultipleChoice", 2), given=given))


def test_next_sentences(tmp_path: Path) -> None:
    assert_profits(compared(tmp_path, partial(bert_for, "NextSentencePrediction")))


def test_regression(tmp_path: Path) -> None:
    make = partial(bert_classifier, num_labels=1, problem_type="regression")
    assert_profits(compared(tmp_path, make, given=rows.given(valued)))


# Architectures

T5 = ("shared", "encoder.block.0", "relative_attention_bias")
ENDS: dict[str, Any] = {"eos_token_id": 2, "decoder_start_token_id": 0, "pad_token_id": 0, "vocab_size": 100}


def ended(count: int, seed: int, *, of_one_length: bool = False) -> list[rows.Row]:
    """Texts for models that read the one end token of each."""
    return rows.labelled(rows.encoded(rows.texts(count, 12 if of_one_length else 3, 12, seed=seed)))


def first_without_padding(batch: list[rows.Row]) -> dict[str, Any]:
    """Texts are cut to the shortest of the batch, unless that has less than five tokens; so most have no padding."""
    shortest = min(len(row["input_ids"]) for row in batch)
    if shortest < 5:
        return rows.padded(batch)
    cut = [
        row | {"input_ids": [*row["input_ids"][: shortest - 1], 2], "attention_mask": [1] * shortest} for row in batch
    ]
    return rows.padded(cut)


BATCHES: dict[str, dict[str, Any]] = {
    "padded": rows.given(ended),
    "never padded": rows.given(partial(ended, of_one_length=True)),
    "padded at times": rows.given(ended, first_without_padding),
}
SEQ2SEQ: dict[str, Callable[[], Any]] = {
    "t5": partial(classifier, "t5", T5, **ENDS),
    "t5, nothing frozen": partial(classifier, "t5", **ENDS),
    "mt5": partial(classifier, "mt5", T5, **ENDS),
    "bart": partial(classifier, "bart", ("shared", "encoder"), **ENDS),
}


@pytest.mark.parametrize(
    ("kind", "batches"),
    [*product(["t5", "bart"], BATCHES), ("mt5", "never padded"), ("t5, nothing frozen", "padded at times")],
)
def test_an_encoder_with_a_decoder(tmp_path: Path, kind: str, batches: str) -> None:
    """What it predicts holds the encoder's states; those of padding are nobody's."""
    compared(tmp_path, SEQ2SEQ[kind], given=BATCHES[batches], real=True, per_device_train_batch_size=4)


LEFT = partial(rows.padded, left=True)
KINDS: dict[str, tuple[Callable[[], Any], Any]] = {
    "roberta": (partial(classifier, "roberta", ("embeddings", "layer.0."), pad_token_id=0), None),
    "distilbert": (partial(classifier, "distilbert", ("embeddings", "layer.0.")), None),
    "electra": (partial(classifier, "electra", ("embeddings", "layer.0.")), None),
    "deberta-v2": (partial(classifier, "deberta-v2", ("embeddings", "layer.0.")), None),
    "albert": (partial(classifier, "albert", ("embeddings",)), None),
    "llama": (partial(classifier, "llama", ("embed_tokens", "layers.0.")), None),
    "llama, padded on the left": (partial(classifier, "llama", ("embed_tokens", "layers.0.")), LEFT),
    "gpt2, padded on the left": (partial(classifier, "gpt2", ("wte", "wpe", "h.0.")), LEFT),
    "bloom, padded on the left": (partial(classifier, "bloom", ("embeddings", "h.0."), pad_token_id=0), LEFT),
}


@pytest.mark.parametrize(("kind", "size"), [*product(KINDS, [8]), *((kind, 1) for kind in KINDS if "left" in kind)])
def test_an_architecture(tmp_path: Path, kind: str, size: int) -> None:
    make, collate = KINDS[kind]

    def small(count: int, seed: int) -> list[rows.Row]:
        made = rows.texts(count, seed=seed)
        return rows.labelled(rows.encoded([[token % 50 or 3 for token in text] for text in made]))

    compared(
        tmp_path,
        make,
        given=rows.given(small, collate),
        per_device_train_batch_size=size,
        per_device_eval_batch_size=size,
        max_steps=10,
    )


def test_plain_architectures_profit(tmp_path: Path) -> None:
    make = partial(classifier, "distilbert", ("embeddings", "layer.0."), vocab_size=100)
    assert_profits(compared(tmp_path, make), boundary="layer 1")
