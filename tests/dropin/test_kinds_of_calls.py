"""Calls that are not all of one kind: inputs that some batches have, and forwards that ask how wide a batch is."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Classifier, Depth, mean_of

if TYPE_CHECKING:
    from pathlib import Path


# Inputs that some batches have


class Segmented(Classifier):
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        return self.answer(self.pooled(input_ids, attention_mask, token_type_ids=token_type_ids), labels)


def with_segments(batch: list[rows.Row]) -> dict[str, Any]:
    """Batches whose first text is long have segments: the second half of each text is another one."""
    inputs = rows.padded(batch)
    if len(batch[0]["input_ids"]) > 12:
        places = torch.arange(inputs["input_ids"].shape[1])
        inputs["token_type_ids"] = (places >= inputs["attention_mask"].sum(1, keepdim=True) // 2).long()
    return inputs


class Named(Classifier):
    """The name of a task says how a text is pooled."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, task: str = "first", labels: Tensor | None = None
    ) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[:, 0] if task == "first" else mean_of(hidden, attention_mask), labels)


class Opened(Named):
    """The name of a task says which token opens a text."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, task: str = "first", labels: Tensor | None = None
    ) -> Any:
        opening = torch.full_like(input_ids[:, :1], 50 if task == "first" else 60)
        return self.answer(self.pooled(torch.cat([opening, input_ids[:, 1:]], dim=1), attention_mask), labels)


class TwoHeads(Named):
    """The name of a task says which head is asked."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.heads = nn.ModuleDict({"first": nn.Linear(16, 2), "mean": nn.Linear(16, 2)})

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, task: str = "first", labels: Tensor | None = None
    ) -> Any:
        logits = self.heads[task](self.pooled(input_ids, attention_mask))
        output = self.answer(self.pooled(input_ids, attention_mask), None)
        output.logits = logits
        output.loss = functional.cross_entropy(logits, labels) if labels is not None else None
        return output


def named(batch: list[rows.Row], name: str = "task", values: tuple[Any, Any] = ("first", "mean")) -> dict[str, Any]:
    return rows.padded(batch) | {name: values[len(batch[0]["input_ids"]) % 2]}


class Levelled(Classifier):
    """An int says which of the layers is read."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, level: int = 4, labels: Tensor | None = None
    ) -> Any:
        ids = input_ids if level == 4 else input_ids.flip(1)
        mask = attention_mask if level == 4 else attention_mask.flip(1)
        return self.answer(self.pooled(ids, mask), labels)


class Switched(Classifier):
    """A truth value says whether segments are told."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, tells: bool | None = None, labels: Tensor | None = None
    ) -> Any:
        return self.answer(
            self.pooled(input_ids, attention_mask, token_type_ids=input_ids % 2 if tells else None), labels
        )


class Spanned(Classifier):
    """Some batches say which tokens are to be pooled."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, span: Tensor | None = None, labels: Tensor | None = None
    ) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[:, 0] if span is None else mean_of(hidden, span), labels)


def with_spans(batch: list[rows.Row]) -> dict[str, Any]:
    inputs = with_segments(batch)
    segments = inputs.pop("token_type_ids", None)
    return inputs if segments is None else inputs | {"span": (1 - segments) * inputs["attention_mask"]}


class Paired(Classifier):
    """Some batches have a second text."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, second: Tensor | None = None, labels: Tensor | None = None
    ) -> Any:
        pooled = self.pooled(input_ids, attention_mask)
        if second is not None:
            pooled = pooled - self.pooled(second, (second != 0).long())
        return self.answer(pooled, labels)


def with_seconds(batch: list[rows.Row]) -> dict[str, Any]:
    inputs = rows.padded(batch)
    return inputs | ({"second": inputs["input_ids"].flip(0)} if len(batch[0]["input_ids"]) > 12 else {})


OPTIONAL: dict[str, tuple[type[Classifier], Any]] = {
    "segments": (Segmented, with_segments),
    "a span to be pooled": (Spanned, with_spans),
    "a second text": (Paired, with_seconds),
    "a name that says how to pool": (Named, named),
    "a name that changes the text": (Opened, named),
    "a name that chooses a head": (TwoHeads, named),
    "an int": (Levelled, partial(named, name="level", values=(4, 3))),
    "a truth value": (Switched, partial(named, name="tells", values=(False, True))),
    "one that is None at times": (Switched, partial(named, name="tells", values=(None, True))),
}


def plain(count: int, seed: int) -> list[rows.Row]:
    return rows.labelled(rows.encoded(rows.texts(count, seed=seed)))


@pytest.mark.parametrize(
    ("case", "frozen"),
    [*((case, "lower") for case in OPTIONAL), ("an int", "trunk"), ("a span to be pooled", "nothing")],
)
def test_an_input_that_is_not_always_the_same(tmp_path: Path, case: str, frozen: Depth) -> None:
    kind, collate = OPTIONAL[case]
    compared(tmp_path, partial(kind, frozen), given=rows.given(plain, collate), per_device_train_batch_size=4)


# Features beside a text


class Featured(Classifier):
    """Features of shape (rows, 24) stand beside the pooled vector."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen, width=40)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, features: Tensor, labels: Tensor | None = None
    ) -> Any:
        return self.answer(torch.cat([self.pooled(input_ids, attention_mask), features], dim=-1), labels)


class Summed(Featured):
    """It takes features of any number."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, features: Tensor, labels: Tensor | None = None
    ) -> Any:
        return super().forward(input_ids, attention_mask, functional.pad(features, (0, 24 - features.shape[1])), labels)


class Counted(Classifier):
    """Whole numbers of shape (rows, 24) say what the segments are, so the trunk depends on them."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, features: Tensor, labels: Tensor | None = None
    ) -> Any:
        segments = (features.sum(1, keepdim=True) + input_ids) % 2
        return self.answer(self.pooled(input_ids, attention_mask, token_type_ids=segments), labels)


def with_features(count: int, seed: int, *, whole: bool = False, texts: int | None = None) -> list[rows.Row]:
    """Features that differ mostly behind a text's length; `texts` different texts, or all of them."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    made = plain(count, seed)
    for index, row in enumerate(made):
        if texts is not None:
            row |= {name: made[index % texts][name] for name in ("input_ids", "attention_mask")}
        row["features"] = [0] * 12 + [draw.randint(0, 9) if whole else draw.gauss(0, 1) for _ in range(12)]
        row["features"] = row["features"] if whole else [float(value) for value in row["features"]]
    return made


BY_EIGHT = partial(rows.padded, multiple=8)
FEATURES: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "beside the vector": (Featured, rows.given(with_features, BY_EIGHT)),
    "beside the vector, as many as there are": (Summed, rows.given(with_features, BY_EIGHT)),
    "beside the vector, few texts": (Summed, rows.given(partial(with_features, texts=5), BY_EIGHT)),
    "in the trunk": (Counted, rows.given(partial(with_features, whole=True), BY_EIGHT)),
    "in the trunk, few texts": (Counted, rows.given(partial(with_features, whole=True, texts=5), BY_EIGHT)),
    "at a fixed width": (Featured, rows.given(with_features, partial(rows.padded, width=24))),
    "in the trunk, at a fixed width": (
        Counted,
        rows.given(partial(with_features, whole=True, texts=5), partial(rows.padded, width=24)),
    ),
}


@pytest.mark.parametrize(
    ("case", "frozen"), [*((case, "lower") for case in FEATURES), ("in the trunk, few texts", "trunk")]
)
def test_features_that_may_be_as_wide_as_the_text(tmp_path: Path, case: str, frozen: Depth) -> None:
    kind, given = FEATURES[case]
    compared(tmp_path, partial(kind, frozen), given=given)


def test_features_that_are_never_as_wide(tmp_path: Path) -> None:
    def narrow(count: int, seed: int) -> list[rows.Row]:
        return [row | {"features": [float(value) for value in row["features"]]} for row in with_features(count, seed)]

    assert_profits(compared(tmp_path, Featured, given=rows.given(narrow, partial(rows.padded, width=25))))


# Forwards that ask how wide or long a batch is


class PoolsByWidth(Classifier):
    """Batches that are wider than 20 tokens are pooled otherwise."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return mean_of(hidden, mask) if ids.shape[1] > 20 else hidden[:, 0]


class PoolsByLength(Classifier):
    """Texts that are longer than 20 tokens are pooled otherwise."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return torch.where(mask.sum(1, keepdim=True) > 20, mean_of(hidden, mask), hidden[:, 0])


class Cuts(Classifier):
    """Texts are cut within the forward."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return super().pooled(ids[:, :16], mask[:, :16])


class CutsAndMeans(Classifier):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return mean_of(self.bert(ids[:, :16], attention_mask=mask[:, :16]).last_hidden_state, mask[:, :16])


class Windows(Classifier):
    """A text is read in windows of eight tokens, each opened by the first token of the text."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        spare = -ids.shape[1] % 8
        windows, real = (functional.pad(part, (0, spare)).reshape(len(ids), -1, 8) for part in (ids, mask))
        count = windows.shape[1]
        opened = torch.cat([ids[:, :1, None].expand(-1, count, 1), windows], dim=2).flatten(0, 1)
        attended = torch.cat([torch.ones_like(real[:, :, :1]), real], dim=2).flatten(0, 1)
        vectors = self.bert(opened, attention_mask=attended).last_hidden_state[:, 0].reshape(len(ids), count, -1)
        return mean_of(vectors, real.amax(2))


class HeadAndTail(Classifier):
    """Of wide batches the first and the last eight positions are read."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        if ids.shape[1] > 20:
            ids, mask = (torch.cat([part[:, :8], part[:, -8:]], dim=1) for part in (ids, mask))
            mask = torch.cat([mask[:, :8], torch.ones_like(mask[:, 8:])], dim=1)
        return super().pooled(ids, mask)


class Scaled(Classifier):
    """The width of the batch is a part of the result."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return super().pooled(ids, mask) * (ids.shape[1] / 20)


class FromTheEnd(Classifier):
    """Positions are counted from the end of the batch."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        places = torch.arange(ids.shape[1] - 1, -1, -1).expand_as(ids)
        return super().pooled(ids, mask, position_ids=places)


STEPS: tuple[type[Classifier], ...] = (PoolsByWidth, PoolsByLength, Cuts, CutsAndMeans, Windows, HeadAndTail)
WIDTHS: tuple[type[Classifier], ...] = (Scaled, FromTheEnd)


@pytest.mark.parametrize(
    ("kind", "frozen"), [*((kind, "lower") for kind in (*STEPS, *WIDTHS)), (Cuts, "trunk"), (PoolsByWidth, "trunk")]
)
def test_a_forward_that_depends_on_the_width(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), per_device_train_batch_size=4)


@pytest.mark.parametrize("kind", [PoolsByWidth, Cuts, Scaled])
def test_one_at_a_fixed_width(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, kind, given=rows.given(plain, partial(rows.padded, width=40)))


class PoolsWide(PoolsByWidth):
    """Batches of more than 48 positions are pooled otherwise."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return mean_of(hidden, mask) if ids.shape[1] > 48 else hidden[:, 0]


@pytest.mark.parametrize(
    ("kind", "frozen"), [(PoolsWide, "nothing"), (PoolsWide, "lower"), (Cuts, "lower"), (Windows, "lower")]
)
def test_long_texts(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    def long(count: int, seed: int) -> list[rows.Row]:
        return rows.labelled(rows.encoded(rows.texts(count, 3, 60, seed=seed)))

    make = partial(kind, frozen, max_position_embeddings=64)
    compared(tmp_path, make, given=rows.given(long), per_device_train_batch_size=4)


# Labels as an input


class Told(Classifier):
    """While it trains, the trunk is told the labels."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        segments = labels[:, None].expand_as(input_ids) if labels is not None else None
        return self.answer(self.pooled(input_ids, attention_mask, token_type_ids=segments), labels)


class ToldByToken(Told):
    """The second token is one of the label's."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        ids = input_ids.clone()
        if labels is not None and self.training:
            ids[:, 1] = 90 + labels
        return self.answer(self.pooled(ids, attention_mask), labels)


class ToldByText(Told):
    """The labels of the batch say in which order its rows are read."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        ids = input_ids if labels is None else torch.where(labels[:, None] == 1, (input_ids * 7) % 98, input_ids)
        return self.answer(self.pooled(ids, attention_mask), labels)


def twice_labelled(count: int, seed: int) -> list[rows.Row]:
    """Each text comes with one label and with the other."""
    texts = [text for text in rows.texts(count // 2, seed=seed) for _ in range(2)]
    return rows.labelled(rows.encoded(texts))


@pytest.mark.parametrize("frozen", ["lower", "trunk"])
@pytest.mark.parametrize("kind", [Told, ToldByToken, ToldByText])
def test_labels_as_an_input_of_the_trunk(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), given=rows.given(twice_labelled), eval_strategy="epoch")
