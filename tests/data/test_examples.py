"""Choosing and checking columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import datasets
import pytest

from frostline.data.examples import choose_columns, read_examples
from tests.data.conftest import CHINESE, GERMAN

if TYPE_CHECKING:
    from collections.abc import Callable

Expect = Any


def table(**columns: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


def test_a_text_and_a_label(write: Callable[..., str]) -> None:
    source = write("a.csv", f'id,Text,label\n1,"{GERMAN}",x\n2,{CHINESE},y\n')
    examples = read_examples(source, text_columns=("Text",))
    assert examples.dataset.column_names == ["text", "label"]
    assert examples.dataset["text"][:] == [GERMAN, CHINESE]
    assert (examples.source, examples.text_columns) == (source, ("Text",))
    assert (examples.label_columns, len(examples)) == (("label",), 2)


def test_pairs_without_labels() -> None:
    data = table(a=["x"], b=["y"], c=["z"])
    examples = choose_columns(data, text_columns=("b", "a"), label_columns=None)
    assert examples.dataset.to_list() == [{"text": "y", "text_pair": "x"}]
    assert examples.label_columns == ()


def test_columns_may_swap_the_names_they_get() -> None:
    data = table(text=["x"], text_pair=["y"])
    examples = choose_columns(data, text_columns=("text_pair", "text"), label_columns=())
    assert examples.dataset.to_list() == [{"text": "y", "text_pair": "x"}]


def test_several_labels_keep_their_names() -> None:
    data = table(text=["x"], toxic=[1], insult=[0], other=[2])
    examples = choose_columns(data, label_columns=["insult", "toxic"])
    assert examples.dataset.column_names == ["text", "insult", "toxic"]


def test_numbers_become_texts() -> None:
    examples = choose_columns(table(text=[7, 12], label=[0, 1]))
    assert examples.dataset["text"][:] == ["7", "12"]
    examples = choose_columns(table(text=[0.5, 12.0], label=[0, 1]))
    assert examples.dataset["text"][:] == ["0.5", "12"]


def test_the_limit_takes_and_checks_the_first_rows() -> None:
    data = table(text=["a", "b", " "], label=["x", "y", "z"])
    assert choose_columns(data, limit=2).dataset["text"][:] == ["a", "b"]
    assert len(choose_columns(data.select([0, 1]), limit=9)) == 2


def test_a_shuffled_data_set() -> None:
    data = table(text=["a", "b", "c"], label=["x", "y", "z"]).select([2, 0])
    assert choose_columns(data).dataset.to_list() == [
        {"text": "c", "label": "z"},
        {"text": "a", "label": "x"},
    ]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one(data_error: Expect, limit: int) -> None:
    with data_error(f"limit of rows is {limit}"):
        choose_columns(table(text=["a"], label=["b"]), limit=limit)


def test_a_missing_column(data_error: Expect) -> None:
    data = table(sentence=["a"], labels=["b"])
    with data_error("no column 'text'", "'sentence', 'labels'"):
        choose_columns(data)
    with data_error("no column 'Sentense'", "Did you mean 'sentence'?", "'d.csv'"):
        choose_columns(data, text_columns=["Sentense"], source="d.csv")
    with data_error("no column 'label' to take as label", "Did you mean 'labels'?"):
        choose_columns(data, text_columns=["sentence"])


def test_columns_that_contradict(data_error: Expect) -> None:
    data = table(text=["a"], label=["b"])
    with data_error("'text' is named twice"):
        choose_columns(data, label_columns=["text"])
    with data_error("0 text columns"):
        choose_columns(data, text_columns=())
    with data_error("3 text columns"):
        choose_columns(data, text_columns=("a", "b", "c"))
    with data_error("cannot be called 'text'"):
        choose_columns(data, text_columns=["label"], label_columns=["text"])


def test_blank_texts(data_error: Expect) -> None:
    data = table(text=["a", "", None, "\u3000\n", "b"], label=list("abcde"))
    with data_error("'text' is empty in rows 2, 3 and 4 ", "header not counted", "Remove"):
        choose_columns(data)
    with data_error("rows 1, 2, 3, 4, 5, … (1,000 in all)"):
        choose_columns(table(text=[None, ""] * 500, label=["x"] * 1000))
    with data_error("'text' is empty in row 2 "):
        choose_columns(data, limit=2)
    with data_error("'second' is empty in row 1 "):
        choose_columns(table(text=["a"], second=[" "]), text_columns=("text", "second"), label_columns=None)


def test_blank_cells_of_a_csv(write: Callable[..., str], data_error: Expect) -> None:
    source = write("a.csv", 'text,label\n"a\nb",x\n,y\nNA,z\n')
    with data_error("'text' is empty in row 2 "):
        read_examples(source)


def test_texts_with_nul(write: Callable[..., str], data_error: Expect) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b\0c", "label": 1}]
    source = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    with data_error("NUL character in row 2 "):
        read_examples(source)


def test_missing_labels(data_error: Expect) -> None:
    with data_error("label column 'label' is empty in row 2 "):
        choose_columns(table(text=["a", "b"], label=["x", None]))
    assert len(choose_columns(table(text=["a", "b"], label=["x", ""]))) == 2


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ([["a"], ["b"]], "list<item: string>"),
        ([{"a": "b"}, {"a": "c"}], "struct"),
        ([True, False], "bool"),
        ([None, None], "nothing but null"),
    ],
)
def test_other_types_of_text(data_error: Expect, values: list[Any], phrase: str) -> None:
    with data_error("text column 'text'", phrase):
        choose_columns(table(text=values, label=["a", "b"]))


def test_mixed_types_in_json(write: Callable[..., str], data_error: Expect) -> None:
    source = write("a.jsonl", '{"text": "a", "label": 1}\n{"text": 2, "label": "b"}\n')
    with data_error("text column 'text' holds values of mixed types"):
        read_examples(source)


def test_no_rows(data_error: Expect) -> None:
    with data_error("has no rows"):
        choose_columns(table(text=[], label=[]))
