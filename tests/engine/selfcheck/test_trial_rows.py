from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.batch_inputs import Call, layout_of
from frostline.engine.selfcheck.trial_rows import MOST_ROWS, aligned_inputs, rows_as_they_are, trial_rows, varied_rows
from tests.engine.stubs import Classifier, call_of, padded
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MASKED = frozenset({"input_ids", "attention_mask"})


@pytest.mark.parametrize("lengths", [(7,), (7, 7, 7), (5, 9, 7, 3, 8, 4, 6), (200, 180, 300), (3, 3)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_there_are_few_and_short_rows_with_padding(lengths: tuple[int, ...], side: str) -> None:
    call = trial_rows(call_of(padded(lengths, side=side)), Classifier())
    assert 2 <= call.rows.count <= MOST_ROWS
    assert call.rows.length <= 64
    assert not call.rows.full
    assert bool(call.rows.mask.any(dim=1).all())
    assert call.inputs["input_ids"].shape == call.inputs["attention_mask"].shape == call.shape
    assert torch.equal(call.inputs["attention_mask"].bool(), call.rows.mask)
    assert torch.equal(call.inputs["input_ids"] != 0, call.rows.mask)


def test_what_opens_and_ends_a_text_stays() -> None:
    batch = padded((40, 40, 40))
    call = trial_rows(call_of(batch), nn.Identity())
    for row in range(call.rows.count):
        ids = call.inputs["input_ids"][row][call.rows.mask[row]]
        assert (ids[0], ids[-1]) in [(own[0], own[-1]) for own in batch["input_ids"]]


def test_a_lone_row_is_taken_twice_in_two_orders() -> None:
    batch = padded((7,))
    call = trial_rows(call_of(batch), nn.Identity())
    whole = batch["input_ids"][0].tolist()
    first, second = (call.inputs["input_ids"][row][call.rows.mask[row]].tolist() for row in (0, 1))
    assert [*first[:-1], first[-1]] == [*whole[: len(first) - 1], whole[-1]]
    assert (second[0], second[-1]) == (first[0], first[-1])
    assert 2 < len(second) < len(first)
    assert second[1:-1] != first[1 : len(second) - 1]


def test_their_width_is_one_that_nothing_else_has() -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1, size)) for size in (10, 11))

    batch = padded((7, 5, 6)) | {"features": torch.ones(3, 12), "boxes": torch.ones(3, 7, 13)}
    call = trial_rows(call_of(batch), Sizes())
    assert call.rows.length == 14
    assert call.inputs["features"].shape == (3, 12)
    assert call.inputs["boxes"].shape == (3, 14, 13)


@pytest.mark.parametrize("lengths", [(7, 5, 6), (7, 7, 7), (9, 4, 6, 7), (9,), (30, 20)])
@pytest.mark.parametrize("taken", [5, 6])
def test_nor_has_anything_else_the_width_without_common_padding(lengths: tuple[int, ...], taken: int) -> None:
    sizes = nn.Linear(taken, 25)
    call = trial_rows(call_of(padded(lengths)), sizes)
    assert call.trimmed().rows.length not in {taken, 25, *call_of(padded(lengths)).shape}


def test_they_are_no_wider_than_the_model_takes() -> None:
    for limit in (40, 12):
        call = trial_rows(call_of(padded((limit, limit, limit))), tiny("bert", max_position_embeddings=limit))
        assert call.rows.length <= limit
        assert not call.rows.full


def test_without_a_mask_they_are_taken_as_they_are() -> None:
    ids = padded((7, 7, 7, 7, 7))["input_ids"]
    call = call_of({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    call = replace(call, inputs={"input_ids": ids}, aligned=frozenset({"input_ids"}))
    tried = trial_rows(call, nn.Identity())
    assert tried.shape == (MOST_ROWS, 7)


@pytest.mark.parametrize(("lengths", "padding"), [((7, 4, 5), 9), ((7, 7, 7), 3)])
def test_padded_positions_hold_what_they_hold_in_the_batch(lengths: tuple[int, ...], padding: int) -> None:
    model = Classifier()
    model.config.pad_token_id = 3  # what usually stands there, where the batch has no padding
    batch = padded(lengths)
    batch["input_ids"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], 9)
    labels = torch.where(batch["attention_mask"].bool(), 1, -100)
    kinds = torch.where(batch["attention_mask"].bool(), 1, 0)
    call = trial_rows(call_of(batch | {"labels": labels, "token_type_ids": kinds}), model)
    behind = ~call.rows.mask
    assert set(call.inputs["input_ids"][behind].tolist()) == {padding}
    assert set(call.inputs["labels"][behind].tolist()) == {-100}
    assert set(call.inputs["token_type_ids"][behind].tolist()) == {0}


class TestAlignedInputs:
    """Which inputs follow the mask is told by what the forward takes, never by their shape."""

    def _found(self, forward: Callable[..., Any], **inputs: Tensor) -> Call | None:
        def runs(call: Call) -> bool:
            try:
                forward(**call.inputs)
            except (RuntimeError, ValueError):
                return False
            return True

        return aligned_inputs(call_of(padded((7, 4, 5)) | inputs), Classifier(), runs)

    def test_a_second_text_of_equal_width_is_not_cut(self) -> None:
        def forward(input_ids: Tensor, attention_mask: Tensor, second_ids: Tensor, second_mask: Tensor) -> None:
            _together(input_ids, attention_mask)
            _together(second_ids, second_mask)

        other = {f"second_{name[-4:].strip('_')}": value for name, value in padded((3, 7, 6), seed=1).items()}
        call = self._found(forward, **other)
        assert call is not None
        assert call.aligned == MASKED
        assert call.rows.length != 7
        assert {call.inputs[name].shape for name in other} == {(3, 7)}

    def test_a_second_text_that_is_full_is_not_cut(self) -> None:
        def forward(input_ids: Tensor, attention_mask: Tensor, second_ids: Tensor) -> None:
            _together(input_ids, attention_mask)

        ids = torch.randint(3, 30, (3, 7), generator=torch.Generator().manual_seed(0))
        call = self._found(forward, second_ids=ids)
        assert call is not None
        assert call.aligned == MASKED

    def test_features_of_the_batch_s_width(self) -> None:
        head = nn.Linear(7, 2)

        def forward(input_ids: Tensor, attention_mask: Tensor, features: Tensor) -> None:
            _together(input_ids, attention_mask)
            head(features)

        call = self._found(forward, features=torch.zeros(3, 7))
        assert call is not None
        assert call.aligned == MASKED
        assert call.inputs["features"].shape == (3, 7)

    def test_labels_per_token(self) -> None:
        def forward(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> None:
            _together(input_ids, labels)

        mask = padded((7, 4, 5))["attention_mask"].bool()
        call = self._found(forward, labels=torch.where(mask, 1, -100))
        assert call is not None
        assert call.aligned == MASKED | {"labels"}
        assert torch.equal(call.inputs["labels"] != -100, call.rows.mask)

    def test_labels_per_row(self) -> None:
        call = self._found(lambda input_ids, attention_mask, labels: None, labels=torch.tensor([0, 1, 0]))
        assert call is not None
        assert call.aligned == MASKED
        assert call.inputs["labels"].tolist() == [1, 0, 0]  # the shortest first

    def test_token_types_beside_features_of_their_width(self) -> None:
        head = nn.Linear(7, 2)

        def forward(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, features: Tensor) -> None:
            _together(input_ids, token_type_ids)
            head(features)

        mask = padded((7, 4, 5))["attention_mask"]
        call = self._found(forward, token_type_ids=mask, features=torch.zeros(3, 7))
        assert call is not None
        assert call.aligned == MASKED | {"token_type_ids"}

    def test_ids_that_have_values_behind_the_mask(self) -> None:
        ids = padded((7, 7, 7), seed=3)["input_ids"]
        assert self._found(lambda input_ids, attention_mask: None, input_ids=ids) is None

    def test_a_forward_that_takes_no_other_width(self) -> None:
        head = nn.Linear(7, 2)
        assert self._found(lambda input_ids, attention_mask: head(input_ids.float())) is None


def _together(one: Tensor, other: Tensor) -> Tensor:
    """Something that both of them have to be of one width for."""
    return one + other


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (14, 2), (21, 3), (512, MOST_ROWS)])
def test_rows_as_they_are(most: int, rows: int) -> None:
    lengths = (5, 7, 3, 6, 4)
    call = rows_as_they_are(call_of(padded(lengths)), most)
    assert call.shape == (rows, 7)
    assert 7 in call.rows.lengths
    assert (3 in call.rows.lengths) == (rows > 1)
    assert call.rows.lengths.tolist() == [length for length in lengths if length in call.rows.lengths]


class TestRowsThatAreNoTexts:
    def call(self, *values: float) -> Call:
        images = torch.stack([torch.arange(12.0).view(3, 2, 2) * value for value in values])
        inputs = {"pixel_values": images, "labels": torch.arange(len(values))}
        return Call(inputs, layout_of(inputs), frozenset(), has_tokens=False)

    def test_they_differ(self) -> None:
        tried = varied_rows(self.call(1, 1, 2, 1, 3, 4, 5, 6))
        assert tried.inputs["labels"].tolist() == [0, 2, 4, 5]
        assert (tried.rows.count, tried.has_tokens) == (4, False)

    def test_of_rows_that_are_all_alike_one_is_turned_round(self) -> None:
        tried = varied_rows(self.call(1, 1, 1))
        first, second = tried.inputs["pixel_values"]
        assert torch.equal(second, first.flip(-1))
        assert not torch.equal(first, second)
        assert tried.inputs["labels"].tolist() == [0, 0]
