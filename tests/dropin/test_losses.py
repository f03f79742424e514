"""Losses of one's own in ``compute_loss``, and heads of several tasks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Answer, Classifier, Depth, bert_classifier, mean_of
from tests.training import tokens
from tests.training.beside import OwnLoss, Weighted

if TYPE_CHECKING:
    from pathlib import Path


class Focal(OwnLoss):
    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        likely = outputs.logits.softmax(-1).gather(1, labels[:, None]).squeeze(1)
        return -((1 - likely) ** 2 * likely.log()).mean(), outputs


def _teacher() -> Any:
    model: Any = tokens.model(num_hidden_layers=2)
    return model.eval()


class Distilled(OwnLoss):
    """A teacher of its own says what is likely."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        teacher: Any = vars(self).setdefault("teacher", _teacher())
        outputs = model(**inputs)
        with torch.no_grad():
            target = (teacher(**inputs).logits / 2).softmax(-1)
        apart = functional.kl_div((outputs.logits / 2).log_softmax(-1), target, reduction="batchmean")
        return 0.5 * outputs.loss + 2 * apart, outputs


class ByItself(Distilled):
    """The model's own answer to the same batch in another order is the target."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        with torch.no_grad():
            turned = model(**{name: value.flip(0) for name, value in inputs.items()}).logits.flip(0)
        return outputs.loss + functional.mse_loss(outputs.logits * 0.9, turned), outputs


class Mixup(OwnLoss):
    """Embeddings of two texts are mixed."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        labels = inputs.pop("labels")
        if not model.training:
            outputs = model(**inputs)
            return functional.cross_entropy(outputs.logits, labels), outputs
        share = float(np.random.beta(0.4, 0.4))  # noqa: NPY002 - as projects do
        order = torch.randperm(len(labels))
        table = model.get_input_embeddings()
        mixed = share * table(inputs["input_ids"]) + (1 - share) * table(inputs["input_ids"][order])
        outputs = model(inputs_embeds=mixed, attention_mask=inputs["attention_mask"])
        one, other = (functional.cross_entropy(outputs.logits, target) for target in (labels, labels[order]))
        return share * one + (1 - share) * other, outputs


class MixesLabels(OwnLoss):
    """Texts stay as they are, and each answers for another one's label as well."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        order = torch.randperm(len(inputs["labels"])) if model.training else torch.arange(len(inputs["labels"]))
        return 0.7 * outputs.loss + 0.3 * functional.cross_entropy(outputs.logits, inputs["labels"][order]), outputs


class Beneath(OwnLoss):
    """It calls the trunk, not the model."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        labels = inputs.pop("labels")
        hidden = model.bert(**inputs).last_hidden_state
        logits = model.classifier(mean_of(hidden, inputs["attention_mask"]))
        return functional.cross_entropy(logits, labels), {"logits": logits}


class Both(OwnLoss):
    """It calls the model, and the trunk besides."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        hidden = model.bert(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        return outputs.loss + mean_of(hidden, inputs["attention_mask"]).pow(2).mean(), outputs


class ByPosition(OwnLoss):
    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"])
        return outputs.loss, outputs


class Doubled(OwnLoss):
    """The batch is given to the model twice over, as one."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        if model.training:
            inputs = {name: torch.cat([value, value]) for name, value in inputs.items()}
        outputs = model(**inputs)
        return outputs.loss, outputs


class InChunks(OwnLoss):
    """The batch is given to the model in two parts."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        halves = [{name: value.chunk(2)[half] for name, value in inputs.items()} for half in (0, 1)]
        one, other = (model(**half) for half in halves)
        return (one.loss + other.loss) / 2, {"logits": torch.cat([one.logits, other.logits])}


PLAIN = (Weighted, Focal, Distilled, MixesLabels, ByPosition)
OTHERS = (ByItself, Mixup, Beneath, Both, Doubled, InChunks)


@pytest.mark.parametrize("mixin", PLAIN)
def test_a_loss_of_the_logits(tmp_path: Path, mixin: type) -> None:
    assert_profits(compared(tmp_path, bert_classifier, mixin, eval_strategy="epoch"))


@pytest.mark.parametrize("mixin", OTHERS)
def test_a_loss_that_calls_as_it_likes(tmp_path: Path, mixin: type) -> None:
    compared(tmp_path, bert_classifier, mixin, eval_strategy="epoch")


def test_label_smoothing(tmp_path: Path) -> None:
    assert_profits(compared(tmp_path, bert_classifier, label_smoothing_factor=0.2, eval_strategy="epoch"))


# Several tasks


class TwoTasks(Classifier):
    """Each row has a label of each of two tasks."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.other = nn.Linear(16, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, labels_b: Tensor | None = None
    ) -> Any:
        pooled = self.pooled(input_ids, attention_mask)
        output: Answer = self.answer(pooled, labels, others=self.other(pooled))
        if labels_b is not None and output.loss is not None and output.others is not None:
            output.loss = output.loss + functional.cross_entropy(output.others, labels_b)
        return output


class ATaskPerRow(TwoTasks):
    """Each row is of one task, which says whose head's loss counts."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, labels_b: Tensor | None = None
    ) -> Any:
        pooled = self.pooled(input_ids, attention_mask)
        heads = self.head(pooled), self.other(pooled)
        loss = None
        if labels is not None and labels_b is not None:
            each = [
                functional.cross_entropy(logits, target % logits.shape[1], reduction="none")
                for logits, target in zip(heads, (labels, labels_b), strict=True)
            ]
            loss = torch.where(labels_b == 0, each[0], each[1]).mean()
        return Answer(loss=loss, logits=heads[0], others=heads[1])


class Uncertain(TwoTasks):
    """Learned variances weigh the tasks."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.spread = nn.Parameter(torch.zeros(2))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, labels_b: Tensor | None = None
    ) -> Any:
        pooled = self.pooled(input_ids, attention_mask)
        logits, others = self.head(pooled), self.other(pooled)
        loss = None
        if labels is not None and labels_b is not None:
            each = torch.stack([functional.cross_entropy(logits, labels), functional.cross_entropy(others, labels_b)])
            loss = (each * (-self.spread).exp() + self.spread).sum()
        return Answer(loss=loss, logits=logits, others=others)


def of_two_tasks(count: int, seed: int) -> list[rows.Row]:
    made = rows.labelled(rows.encoded(rows.texts(count, seed=seed)))
    return [row | {"labels_b": index % 3} for index, row in enumerate(made)]


@pytest.mark.parametrize("frozen", ["lower", "trunk"])
@pytest.mark.parametrize("kind", [TwoTasks, ATaskPerRow, Uncertain])
def test_two_tasks(tmp_path: Path, kind: type[TwoTasks], frozen: Depth) -> None:
    ours = compared(tmp_path, partial(kind, frozen), given=rows.given(of_two_tasks), eval_strategy="epoch")
    if frozen == "lower":
        assert_profits(ours)
