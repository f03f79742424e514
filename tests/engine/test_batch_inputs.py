from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from frostline.engine.batch_inputs import Call, NeedsPlain, read_call
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.token_layout import TokenLayout


def _forward(
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    labels: Any = None,
    output_hidden_states: Any = None,
    **others: Any,
) -> None: ...


SIGNATURE = inspect.signature(_forward)
IDS = torch.tensor([[5, 6, 7, 0], [8, 9, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def _read(*arguments: Any, config: Any = None, **options: Any) -> Call:
    return read_call(SIGNATURE, arguments, options, config)


def _why(*arguments: Any, config: Any = None, **options: Any) -> str:
    with pytest.raises(NeedsPlain) as reason:
        read_call(SIGNATURE, arguments, options, config)
    return str(reason.value)


class TestReading:
    def test_arguments_with_and_without_names_are_the_same_call(self) -> None:
        call, other = _read(IDS, MASK, custom=1), _read(input_ids=IDS, attention_mask=MASK, custom=1)
        assert call.inputs.keys() == other.inputs.keys() == {"input_ids", "attention_mask", "custom"}
        assert call.digests() == other.digests()
        assert call.rows.mask.tolist() == MASK.bool().tolist()

    def test_without_a_mask_all_is_real(self) -> None:
        assert _read(IDS).rows.full
        assert _read(IDS).layout == "no mask"

    @pytest.mark.parametrize(
        ("mask", "layout"),
        [
            (MASK, "right"),
            (MASK.flip(1), "left"),
            (torch.ones_like(MASK), "right"),
            (torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]), "left"),
        ],
    )
    def test_the_side_of_the_padding_is_seen(self, mask: torch.Tensor, layout: str) -> None:
        assert _read(IDS, mask).layout == layout

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "no tensor with rows"),
            ({"pixel_values": torch.zeros(0, 3)}, "no tensor with rows"),
            ({"input_ids": [[1, 2]], "labels": IDS}, "input_ids is a list"),
            ({"input_ids": IDS, "inputs_embeds": torch.zeros(2, 4, 3)}, "inputs_embeds was given"),
            ({"input_ids": IDS, "past_key_values": object()}, "past_key_values was given"),
            ({"input_ids": IDS, "output_hidden_states": True}, "output_hidden_states was given"),
            ({"input_ids": IDS, "output_attentions": True}, "output_attentions was given"),
            ({"input_ids": IDS, "head_mask": torch.ones(2, 2)}, "head_mask was given"),
            ({"input_ids": IDS, "decoder_input_ids": IDS}, "decoder_input_ids was given"),
            ({"input_ids": IDS, "pixel_values": torch.zeros(5, 3)}, "pixel_values has another number of rows"),
            ({"input_ids": IDS, "attention_mask": MASK[:, :3]}, "attention_mask is not"),
            ({"input_ids": IDS, "attention_mask": MASK.float()}, "attention_mask is not"),
            ({"input_ids": IDS, "attention_mask": MASK * 2}, "attention_mask is not"),
            ({"input_ids": IDS, "attention_mask": torch.zeros_like(MASK)}, "a text has no tokens"),
            ({"input_ids": IDS, "attention_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])}, "a hole in its mask"),
            ({"input_ids": IDS, "attention_mask": torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])}, "a hole in its mask"),
        ],
    )
    def test_what_only_the_plain_forward_answers(self, options: dict[str, Any], words: str) -> None:
        assert words in _why(**options)

    def test_arguments_that_the_forward_does_not_have(self) -> None:
        assert "no names" in _why(*[IDS] * 9)
        with pytest.raises(NeedsPlain, match="no names"):
            read_call(inspect.signature(lambda input_ids, *rest: None), (IDS, MASK), {}, None)

    def test_the_config_may_ask_for_more_outputs(self) -> None:
        config = SimpleNamespace(output_hidden_states=True)
        assert "config asks for output_hidden_states" in _why(IDS, config=config)
        assert _read(IDS, config=config, output_hidden_states=False).shape == (2, 4)


class TestCutting:
    def test_trailing_padding_is_trimmed(self) -> None:
        call = _read(IDS, MASK, bbox=torch.zeros(2, 4, 4), weights=torch.ones(2)).trimmed()
        assert call.shape == (2, 3)
        assert call.inputs["input_ids"].shape == call.inputs["attention_mask"].shape == (2, 3)
        assert call.inputs["bbox"].shape == (2, 3, 4)
        assert call.inputs["weights"].shape == (2,)

    def test_leading_padding_and_full_rows_stay(self) -> None:
        for mask in (MASK.flip(1), torch.ones_like(MASK)):
            call = _read(IDS, mask)
            assert call.trimmed() is call

    def test_rows_are_selected_in_the_order_asked_for(self) -> None:
        call = _read(IDS, MASK, labels=torch.tensor([3, 4]), scale=torch.tensor(0.5)).select([1, 0, 1])
        assert call.inputs["labels"].tolist() == [4, 3, 4]
        assert call.inputs["input_ids"].tolist() == IDS[[1, 0, 1]].tolist()
        assert call.inputs["scale"].item() == 0.5
        assert call.rows.lengths.tolist() == [2, 3, 2]

    def test_what_is_known_to_be_aligned_is_cut_and_nothing_else(self) -> None:
        call = _read(IDS, MASK, features=torch.ones(2, 4)).with_aligned(frozenset({"input_ids", "attention_mask"}))
        assert call.trimmed().inputs["input_ids"].shape == (2, 3)
        assert call.trimmed().inputs["features"].shape == (2, 4)

    def test_an_input_that_was_aligned_and_is_not(self) -> None:
        names = frozenset({"input_ids", "attention_mask", "labels"})
        call = _read(IDS, MASK, labels=torch.tensor([3, 4]))
        with pytest.raises(NotReplayable, match="labels has not one value per token, as it had before"):
            call.with_aligned(names)
        assert _read(IDS, MASK, labels=IDS).with_aligned(names).aligned == names


class TestKinds:
    def test_values_and_sizes_make_no_other_kind(self) -> None:
        kind = _read(IDS, MASK, labels=torch.tensor([1, 0]), num_items_in_batch=2).kind()
        assert _read(IDS[:1, :2], MASK[:1, :2], labels=torch.tensor([1]), num_items_in_batch=5).kind() == kind

    @pytest.mark.parametrize(
        "more",
        [
            {"token_type_ids": IDS},
            {"labels": torch.tensor([1.0, 0.0])},
            {"labels": torch.tensor([[1], [0]])},
            {"labels": None},
            {"labels": torch.tensor([1, 0]), "task": "b"},
            {"labels": torch.tensor([1, 0]), "task": "a", "return_dict": True},
        ],
    )
    def test_everything_else_makes_another_kind(self, more: dict[str, Any]) -> None:
        kind = _read(IDS, MASK, labels=torch.tensor([1, 0]), task="a").kind()
        assert _read(IDS, MASK, **more).kind() != kind

    def test_the_value_that_stands_at_padded_positions(self) -> None:
        call = _read(IDS, MASK, token_type_ids=1 - MASK, other=IDS + torch.arange(4), bbox=torch.ones(2, 4, 4))
        assert call.paddings == {
            "input_ids": 0,
            "attention_mask": 0,
            "token_type_ids": 1,
            "other": None,
            "bbox": 1.0,
        }
        assert _read(IDS, torch.ones_like(IDS)).paddings == {}


class TestDigests:
    def test_padding_makes_no_difference_unless_it_does(self) -> None:
        wider = _read(torch.nn.functional.pad(IDS, (0, 3)), torch.nn.functional.pad(MASK, (0, 3)))
        call = _read(IDS, MASK)
        assert call.digests() == wider.digests()
        assert set(call.digests(whole=True)).isdisjoint(wider.digests(whole=True))
        other_filler = _read(IDS + (1 - MASK), MASK)
        assert call.digests() == other_filler.digests()
        assert set(call.digests(whole=True)).isdisjoint(other_filler.digests(whole=True))

    def test_a_row_has_its_digest_in_every_company(self) -> None:
        call = _read(IDS, MASK, token_type_ids=MASK * 2)
        for whole in (False, True):
            both = call.digests(whole=whole)
            assert call.select([1]).digests(whole=whole) == both[1:]
            assert call.select([1, 0, 1]).digests(whole=whole) == [both[1], both[0], both[1]]
            assert len(set(both)) == 2
        assert all(len(digest) == 16 for digest in call.digests())

    def test_what_stands_behind_a_text_and_is_no_padding_makes_a_difference(self) -> None:
        other = IDS.clone()
        other[0, 3] = 7  # the other row has zeros there
        assert set(_read(other, MASK).digests()).isdisjoint(_read(IDS, MASK).digests())
        second = torch.tensor([[5, 6, 7, 8], [8, 9, 6, 7]])
        both = (second, second + (1 - MASK))
        one, another = (_read(IDS, MASK, second_ids=ids).digests() for ids in both)
        assert set(one).isdisjoint(another)

    def test_what_is_not_aligned_counts_whole(self) -> None:
        names = frozenset({"input_ids", "attention_mask"})
        features = torch.ones(2, 4)
        one, another = (_read(IDS, MASK, features=own) for own in (features, features + (1 - MASK)))
        assert one.digests() == another.digests()  # taken for padding, as long as nothing else is known
        assert set(one.with_aligned(names).digests()).isdisjoint(another.with_aligned(names).digests())

    def test_what_changes_no_activation_makes_no_difference(self) -> None:
        call = _read(IDS, MASK)
        for more in ({"return_dict": True}, {"use_cache": False}, {"odd": None}, {"num_items_in_batch": 3}):
            assert _read(IDS, MASK, **more).digests() == call.digests()

    def test_what_is_never_read_beneath_makes_no_difference(self) -> None:
        unread = frozenset({"labels"})
        one, another = (_read(IDS, MASK, labels=torch.tensor(labels)) for labels in ([1, 0], [0, 1]))
        assert set(one.digests()).isdisjoint(another.digests())
        assert one.digests(unread=unread) == another.digests(unread=unread) == _read(IDS, MASK).digests()

    def test_what_is_the_same_for_all_rows_may_count(self) -> None:
        call = _read(IDS, MASK)
        assert set(call.digests(salt="in train mode")).isdisjoint(call.digests())

    def test_every_other_input_makes_a_difference(self) -> None:
        variants = [
            _read(IDS, MASK),
            _read(IDS + MASK, MASK),
            _read(IDS.int(), MASK),
            _read(IDS, MASK, token_type_ids=torch.zeros_like(IDS)),
            _read(IDS, MASK, token_type_ids=MASK),
            _read(IDS, MASK, position_ids=MASK),
            _read(IDS, MASK, bbox=torch.zeros(2, 4, 4)),
            _read(IDS, MASK, bbox=torch.zeros(2, 4, 2)),
            _read(IDS, MASK, bbox=torch.zeros(2, 4, 4, dtype=torch.bfloat16)),
            _read(IDS, MASK, language=torch.tensor([1, 1])),
            _read(IDS, MASK, language=torch.tensor([2, 2])),
            _read(IDS, MASK, scale=0.5),
            _read(IDS, MASK, scale=torch.tensor(0.5)),
        ]
        digests = [digest for call in variants for digest in call.digests()]
        assert len(set(digests)) == len(digests)

    def test_a_difference_in_the_last_token_and_in_one_row_counts(self) -> None:
        other = IDS.clone()
        other[0, 2] = 40
        before, after = _read(IDS, MASK).digests(), _read(other, MASK).digests()
        assert before[0] != after[0]
        assert before[1] == after[1]

    def test_where_a_text_begins_makes_a_difference(self) -> None:
        row = torch.tensor([[5, 6, 7]])
        ones = torch.ones_like(row)
        left = _read(torch.nn.functional.pad(row, (2, 0)), torch.nn.functional.pad(ones, (2, 0)))
        right = _read(torch.nn.functional.pad(row, (0, 2)), torch.nn.functional.pad(ones, (0, 2)))
        assert left.digests() != right.digests()
        assert right.digests() == _read(row, ones).digests()

    def test_inputs_are_not_run_together(self) -> None:
        def digest(extra: list[int], ids: list[int]) -> bytes:
            rows = TokenLayout(torch.ones(1, len(ids), dtype=torch.bool))
            return Call.of({"extra": torch.tensor([extra]), "input_ids": torch.tensor([ids])}, rows).digests()[0]

        assert digest([1, 2], [3, 4, 5]) != digest([1], [2, 3, 4, 5])
        assert digest([1, 2], [3, 4, 5]) == digest([1, 2], [3, 4, 5])
