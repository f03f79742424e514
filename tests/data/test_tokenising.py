"""Texts to token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, DataCollatorWithPadding, PreTrainedTokenizerFast

from frostline.data.tokenising import TokenStats, tokenise
from tests.data.conftest import CHINESE, GERMAN

if TYPE_CHECKING:
    from collections.abc import Mapping

Expect = Any
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


def fast(*, special: bool = True, **kwargs: Any) -> PreTrainedTokenizerFast:
    unknown = {"unk_token": "[UNK]"}
    model = models.WordLevel({word: index for index, word in enumerate(WORDS)}, **unknown)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    names: dict[str, Any] = {"pad_token": "[PAD]", **unknown, **kwargs}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def table(**columns: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


def test_ids_labels_and_counts() -> None:
    data = table(text=["a b", "c", "a b c d"], labels=[0, 1, 0])
    result, stats = tokenise(data, fast())
    assert result["input_ids"][:] == [[2, 4, 5, 3], [2, 6, 3], [2, 4, 5, 6, 7, 3]]
    assert set(result.column_names) == {
        *("labels", "input_ids", "attention_mask", "token_type_ids"),
    }
    assert result["labels"][:] == [0, 1, 0]
    assert stats == TokenStats(rows=3, tokens=13, longest=6, truncated=0, max_length=None)
    assert str(stats) == "3 rows, 13 tokens (4.3 per row, longest 6)"


def test_the_same_as_the_tokenizer_alone() -> None:
    texts = [GERMAN, CHINESE, "a B c"]
    tokenizer = fast(model_max_length=64)
    result, _ = tokenise(table(text=texts), tokenizer)
    plain: Mapping[str, Any] = tokenizer(texts, truncation=True)
    assert {name: result[name][:] for name in plain} == dict(plain)


def test_pairs() -> None:
    result, stats = tokenise(table(text=["a"], text_pair=["b c"]), fast())
    assert result["input_ids"][:] == [[2, 4, 3, 5, 6, 3]]
    assert result["token_type_ids"][:] == [[0, 0, 0, 1, 1, 1]]
    assert stats.tokens == 6


def test_truncation() -> None:
    data = table(text=["a b c d", "a b", "a b c"])
    result, stats = tokenise(data, fast(), max_length=4)
    assert result["input_ids"][:] == [[2, 4, 5, 3], [2, 4, 5, 3], [2, 4, 5, 3]]
    assert (stats.truncated, stats.max_length, stats.longest) == (2, 4, 4)
    assert str(stats).endswith("2 rows truncated to 4 tokens")


@pytest.mark.parametrize(
    ("own", "model_limit", "max_length", "expected"),
    [
        (None, None, None, None),
        (6, None, None, 6),
        (6, 5, None, 5),
        (5, 6, None, 5),
        (None, 5, None, 5),
        (5, 9, 8, 8),  # the model's limit counts where both are known and one is asked for
        (6, None, 4, 4),
    ],
)
def test_the_maximum_length(
    own: int | None, model_limit: int | None, max_length: int | None, expected: int | None
) -> None:
    tokenizer = fast() if own is None else fast(model_max_length=own)
    data = table(text=["a " * 20])
    _, stats = tokenise(data, tokenizer, max_length=max_length, model_limit=model_limit)
    assert stats.max_length == expected
    assert stats.longest == (expected or 22)


def test_lengths_out_of_range(data_error: Expect) -> None:
    data = table(text=["a"])
    for length in (0, -1, 2):
        with data_error(f"maximum length is {length} tokens; it must be 3 or more"):
            tokenise(data, fast(), max_length=length)
    with data_error("maximum length is 9 tokens, but the model takes 8"):
        tokenise(data, fast(), max_length=9, model_limit=8)
    with data_error("maximum length is 9 tokens, but the model takes 8"):
        tokenise(data, fast(model_max_length=8), max_length=9)
    with data_error("must be 5 or more"):
        tokenise(table(text=["a"], text_pair=["b"]), fast(), max_length=4)


def test_texts_without_tokens(data_error: Expect) -> None:
    tokenizer = fast(special=False)
    with data_error("no tokens of rows 2 and 4"):
        tokenise(table(text=["a", " ", "b", "\n"]), tokenizer)


def test_a_tokenizer_in_python() -> None:
    tokenizer = ByT5Tokenizer(model_max_length=512)
    result, stats = tokenise(table(text=["abc", "äöü", "abcdef"]), tokenizer, max_length=7)
    assert [len(ids) for ids in result["input_ids"]] == [4, 7, 7]
    assert result["input_ids"][0] == [100, 101, 102, 1]
    assert stats.truncated == 0
    _, stats = tokenise(table(text=["abc", "äöü", "abcdef"]), tokenizer, max_length=6)
    assert stats.truncated == 2


def test_settings_of_an_earlier_call_are_not_kept() -> None:
    data = table(text=["a b c", "b"])
    tokenizer = fast(model_max_length=64)
    first, _ = tokenise(data, tokenizer)
    tokenizer(["a", "b"], truncation=True, max_length=3, padding=True)
    again, _ = tokenise(data, tokenizer)
    assert again.to_list() == first.to_list()
    shorter, _ = tokenise(data, tokenizer, max_length=3)
    others, _ = tokenise(data.select([0]), tokenizer)
    assert len({result._fingerprint for result in (first, shorter, others)}) == 3
    assert not first.cache_files


def test_batches_of_transformers() -> None:
    data = table(text=["a b", "c"], labels=[[0.0, 1.0], [1.0, 0.0]])
    result, _ = tokenise(data, tokenizer := fast())
    batch = DataCollatorWithPadding(tokenizer)([result[0], result[1]])
    assert batch["input_ids"].tolist() == [[2, 4, 5, 3], [2, 6, 3, 0]]
    assert batch["labels"].shape == (2, 2)
