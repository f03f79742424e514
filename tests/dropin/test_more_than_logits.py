"""Losses and outputs that read more of the trunk than the logits do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin import rows
from tests.dropin.pairs import compared
from tests.dropin.trunks import Answer, Classifier, Depth, mean_of
from tests.training.beside import OwnLoss

if TYPE_CHECKING:
    from pathlib import Path


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


class Joint(Classifier):
    """An intent, read from the first token, and a slot for each token."""

    gives_slots = False

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.slot_head = nn.Linear(16, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, slots: Tensor | None = None
    ) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        output = self.answer(hidden[:, 0], labels)
        slot_logits = self.slot_head(hidden)
        if labels is not None and slots is not None:
            output.loss = output.loss + cross_entropy(slot_logits, slots.where(attention_mask == 1, -100))
        if self.gives_slots:
            output.others = slot_logits
        return output


class JointBoth(Joint):
    """It gives out both."""

    gives_slots = True


def with_slots(count: int, seed: int) -> list[rows.Row]:
    made = rows.labelled(rows.encoded(rows.texts(count, seed=seed)))
    return [row | {"slots": [token % 3 for token in row["input_ids"]]} for row in made]


@pytest.mark.parametrize(
    ("kind", "frozen"), [(Joint, "nothing"), (Joint, "lower"), (Joint, "trunk"), (JointBoth, "lower")]
)
def test_an_intent_and_slots(tmp_path: Path, kind: type[Joint], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), given=rows.given(with_slots))


class Further(Classifier):
    """The loss has a further term, of all tokens."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        output = self.answer(hidden[:, 0], labels)
        if labels is not None:
            output.loss = output.loss + self.term(hidden, input_ids, attention_mask, labels)
        return output

    def term(self, hidden: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """A contrastive term: texts of one label have means alike."""
        means = functional.normalize(mean_of(hidden, mask), dim=-1)
        near = means @ means.T / 0.5
        same = (labels[:, None] == labels[None]).to(near.dtype)
        return functional.binary_cross_entropy_with_logits(near, same)


class Restoring(Further):
    """Tokens are told from their own states, by the table of embeddings."""

    def term(self, hidden: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        table = self.bert.embeddings.word_embeddings.weight
        return cross_entropy(hidden @ table.T, ids.where(mask == 1, -100))


class Penalty(Further):
    """States are kept small, those of the padding too."""

    def term(self, hidden: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        return hidden.pow(2).mean()


class LastToken(Further):
    """The last token of each text is to say the label as well."""

    def term(self, hidden: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        last = hidden[torch.arange(len(ids)), mask.sum(1) - 1]
        return functional.cross_entropy(last[:, :2], labels)


class Beneath(Further):
    """The mean of the states of a frozen layer is to be told from that of the last one."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.probe = nn.Linear(16, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        states = self.bert(input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
        output = self.answer(states[-1][:, 0], labels)
        if labels is not None:
            output.loss = output.loss + functional.cross_entropy(self.probe(mean_of(states[1], attention_mask)), labels)
        return output


@pytest.mark.parametrize(
    ("kind", "frozen"),
    [*((kind, "lower") for kind in (Further, Restoring, Penalty, LastToken, Beneath)), (Further, "trunk")],
)
def test_a_further_term_within_the_forward(tmp_path: Path, kind: type[Further], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen))


def test_a_further_term_with_nothing_frozen(tmp_path: Path) -> None:
    compared(tmp_path, partial(Further, "nothing"))


class GivesStates(Classifier):
    """It gives out the state of each token besides."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[:, 0], labels, hidden=hidden)


class GivesRealStates(Classifier):
    """Those of the padding are blanked, so that nobody sees them."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[:, 0], labels, hidden=hidden * attention_mask.unsqueeze(-1))


class FromStates(OwnLoss):
    """A loss of the mean of all states that a model gives out."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        means = mean_of(outputs.hidden, inputs["attention_mask"])
        return outputs.loss + means.pow(2).mean() + means[:, 0].mean(), outputs


@pytest.mark.parametrize("frozen", get_args(Depth))
def test_states_that_are_used_in_the_loss(tmp_path: Path, frozen: Depth) -> None:
    compared(tmp_path, partial(GivesStates, frozen), FromStates)


@pytest.mark.parametrize("frozen", get_args(Depth))
def test_states_that_are_predicted(tmp_path: Path, frozen: Depth) -> None:
    compared(tmp_path, partial(GivesStates, frozen), eval_strategy="epoch")


def test_states_of_real_tokens_that_are_predicted(tmp_path: Path) -> None:
    compared(tmp_path, GivesRealStates)


class Norms(Classifier):
    """Beside the logits it gives out the size of the mean of all tokens."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[:, 0], labels, others=mean_of(hidden, attention_mask).norm(dim=-1))


@pytest.mark.parametrize("frozen", ["lower", "trunk"])
def test_a_number_of_all_tokens_that_is_predicted(tmp_path: Path, frozen: Depth) -> None:
    compared(tmp_path, partial(Norms, frozen))


class Plainly(GivesStates):
    """It gives out a dict."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        output = super().answer(pooled, labels, **more)
        return {name: value for name, value in output.items() if value is not None}


class Tuple(GivesStates):
    """It gives out a tuple: the loss where there is one, the logits, the states."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(pooled, labels, **more).to_tuple()


@pytest.mark.parametrize("kind", [Plainly, Tuple])
def test_states_in_dicts_and_tuples(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, kind, label_names=["labels"])


class Looked(Classifier):
    """The loss reads the attention of the last layer."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        output = self.bert(input_ids, attention_mask=attention_mask, output_attentions=True)
        answer: Answer = self.answer(output.last_hidden_state[:, 0], labels)
        if answer.loss is not None:
            answer.loss = answer.loss + output.attentions[-1].pow(2).sum(-1).mean()
        return answer


def test_attention_that_is_used_in_the_loss(tmp_path: Path) -> None:
    compared(tmp_path, partial(Looked, attn_implementation="eager"))
