"""What labels mean, and as which numbers the model sees them."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from transformers import PretrainedConfig

from frostline.compat.tables import fixed_list
from frostline.data.examples import Examples, choose_columns, read_examples
from frostline.data.labels import MULTI, REGRESSION, SINGLE, LabelSchema

Expect = Any


def examples(features: Any = None, **columns: list[Any]) -> Examples:
    rows = len(next(iter(columns.values())))
    columns = {"text": [f"text {row}" for row in range(rows)], **columns}
    if features is not None:
        features = datasets.Features({"text": datasets.Value("string"), **features})
    data = datasets.Dataset.from_dict(columns, features=features)
    return choose_columns(data, source="d.csv", label_columns=[c for c in columns if c != "text"])


def config_with(**values: Any) -> PretrainedConfig:
    return PretrainedConfig(**values)


def labels(schema: LabelSchema, rows: Examples) -> list[Any]:
    encoded = schema.encode(rows)
    assert encoded.column_names == ["text", "labels"]
    values: list[Any] = encoded["labels"][:]
    return values


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        (["OTHER", "OFFENSE", "OTHER"], ("OFFENSE", "OTHER"), [1, 0, 1]),
        (["schön", "好", "Zeta"], ("Zeta", "schön", "好"), [1, 2, 0]),
        ([10, 9, 2], ("2", "9", "10"), [2, 1, 0]),
        (["10", "9", "-1"], ("-1", "9", "10"), [2, 1, 0]),
        (["007", "7", "10"], ("007", "7", "10"), [0, 1, 2]),
        ([True, False], ("False", "True"), [1, 0]),
        ([1.0, 3.0], ("1", "3"), [0, 1]),
        (["nan", "inf"], ("inf", "nan"), [1, 0]),
    ],
)
def test_one_label_per_row(values: list[Any], names: tuple[str, ...], ids: list[int]) -> None:
    rows = examples(label=values)
    schema = LabelSchema.infer(rows)
    assert (schema.problem_type, schema.names, schema.num_labels) == (SINGLE, names, len(names))
    assert labels(schema, rows) == ids
    assert schema.encode(rows).features["labels"] == datasets.Value("int64")
    assert schema.config_fields["id2label"] == dict(enumerate(names))
    assert schema.config_fields["label2id"] == {name: index for index, name in enumerate(names)}


def test_class_labels_keep_their_names() -> None:
    feature = {"label": datasets.ClassLabel(names=["neg", "mid", "pos"])}
    rows = examples(feature, label=[2, 0])
    schema = LabelSchema.infer(rows)
    assert schema.names == ("neg", "mid", "pos")
    assert labels(schema, rows) == [2, 0]
    assert labels(schema, examples(label=["mid"])) == [1]


def test_hidden_class_labels(data_error: Expect) -> None:
    rows = examples({"label": datasets.ClassLabel(names=["neg", "pos"])}, label=[-1, -1])
    with data_error("'label'", "outside 0 to 1", "rows 1 and 2", "hidden"):
        LabelSchema(SINGLE, ("neg", "pos")).encode(rows)


def test_regression() -> None:
    rows = examples(label=[0.5, 2.0, -1.0])
    schema = LabelSchema.infer(rows)
    assert (schema.problem_type, schema.names, schema.num_labels) == (REGRESSION, (), 1)
    assert schema.config_fields["id2label"] == {0: "LABEL_0"}
    assert labels(schema, rows) == [0.5, 2.0, -1.0]
    assert schema.encode(rows).features["labels"] == datasets.Value("float32")
    assert labels(schema, examples(label=["1", " 2e1 "])) == [1.0, 20.0]
    assert LabelSchema.infer(examples(label=["1", "2.5"])).problem_type == REGRESSION
    assert labels(LabelSchema.infer(examples(label=[1, 2]), REGRESSION), examples(label=[3])) == [3]


def test_several_values_of_regression() -> None:
    rows = examples(b=[1.5, 2.0], a=["3", "4"])
    schema = LabelSchema.infer(rows)
    assert (schema.problem_type, schema.names, schema.num_labels) == (REGRESSION, ("b", "a"), 2)
    assert labels(schema, rows) == [[1.5, 3.0], [2.0, 4.0]]
    assert labels(schema, examples(a=[1], b=[2])) == [[2.0, 1.0]]
    feature = schema.encode(rows).features["labels"]
    assert feature == fixed_list(datasets.Value("float32"), 2)


def test_columns_of_zero_and_one() -> None:
    rows = examples(toxic=["1", "0"], insult=[0, 0], threat=[True, False])
    schema = LabelSchema.infer(rows)
    assert (schema.problem_type, schema.names) == (MULTI, ("toxic", "insult", "threat"))
    assert labels(schema, rows) == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert labels(schema, examples(insult=[1], threat=[0], toxic=[0])) == [[0.0, 1.0, 0.0]]
    feature = schema.encode(rows).features["labels"]
    assert feature == fixed_list(datasets.Value("float32"), 3)
    assert LabelSchema.infer(examples(toxic=[0, 1]), MULTI).names == ("toxic",)
    assert labels(LabelSchema(MULTI, ("toxic",)), examples(toxic=[0, 1])) == [[0.0], [1.0]]


def test_lists_of_names() -> None:
    rows = examples(label=[["toxic", "insult"], [], ["toxic"]])
    schema = LabelSchema.infer(rows)
    assert (schema.problem_type, schema.names) == (MULTI, ("insult", "toxic"))
    assert labels(schema, rows) == [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    assert labels(schema, examples(label=["toxic | insult", ""])) == [[1.0, 1.0], [0.0, 0.0]]


def test_lists_of_ids() -> None:
    rows = examples(label=[[10], [2, 10], []])
    schema = LabelSchema.infer(rows)
    assert schema.names == ("2", "10")
    assert labels(schema, rows) == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_lists_of_class_labels() -> None:
    feature = {"label": fixed_list(datasets.ClassLabel(names=["a", "b", "c"]), -1)}
    rows = examples(feature, label=[[0, 2], []])
    schema = LabelSchema.infer(rows)
    assert schema.names == ("a", "b", "c")
    assert labels(schema, rows) == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("rows", [[[0, 1, 0], [1, 1, 0]], [[0, 1], [1, 1]], [[0.0, 1.0]], [[True, False]]])
def test_multi_hot_lists(rows: list[list[float]]) -> None:
    schema = LabelSchema.infer(examples(label=rows))
    assert schema.problem_type == MULTI
    assert schema.is_generic
    assert labels(schema, examples(label=rows)) == [[float(v) for v in row] for row in rows]
    one_each = [[int(index == place) for index in range(len(rows[0]))] for place in (0, 1)]
    assert labels(schema, examples(label=one_each)) == one_each


def test_texts_of_several_labels() -> None:
    rows = examples(label=["toxic|insult", "", "toxic", " insult |"])
    schema = LabelSchema.infer(rows, MULTI)
    assert schema.names == ("insult", "toxic")
    assert labels(schema, rows) == [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    rows = examples(label=["a b", "c"])
    whole = LabelSchema.infer(rows, MULTI)
    assert whole.names == ("a b", "c")
    assert labels(whole, rows) == [[1.0, 0.0], [0.0, 1.0]]


def test_from_a_config() -> None:
    from_config = LabelSchema.from_config
    plain = from_config(config_with(num_labels=3))
    assert (plain.problem_type, plain.num_labels, plain.is_generic) == (SINGLE, 3, True)
    assert from_config(config_with(num_labels=1)) == LabelSchema(REGRESSION, ())
    named = config_with(id2label={1: "pos", 0: "neg"}, problem_type=MULTI)
    assert from_config(named) == LabelSchema(MULTI, ("neg", "pos"))
    assert not from_config(named).is_generic
    several = config_with(num_labels=2, problem_type=REGRESSION)
    assert labels(from_config(several), examples(x=[1], y=[2])) == [[1.0, 2.0]]


def test_a_config_that_contradicts_itself(data_error: Expect) -> None:
    with data_error("names a label twice", "id2label"):
        LabelSchema.from_config(config_with(id2label={0: "a", 1: "a"}))


@pytest.mark.parametrize("values", [[1, 0, 2], ["1", "0", "2"], [1.0, 0.0, 2.0]])
def test_placeholder_names_take_ids(values: list[Any]) -> None:
    schema = LabelSchema.from_config(config_with(num_labels=3))
    assert labels(schema, examples(label=values)) == [1, 0, 2]
    assert labels(schema, examples(label=["LABEL_2", "LABEL_0"])) == [2, 0]
    named = {"label": datasets.ClassLabel(names=["a", "b", "c"])}
    assert labels(schema, examples(named, label=[2, 1])) == [2, 1]
    many = LabelSchema.from_config(config_with(num_labels=3, problem_type=MULTI))
    assert labels(many, examples(label=[[0, 2], [1]])) == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def test_a_round_trip_through_a_config() -> None:
    schema = LabelSchema.infer(examples(label=["b", "a"]))
    fields = {name: value for name, value in schema.config_fields.items() if name != "num_labels"}
    config = config_with(**fields)
    assert LabelSchema.from_config(config) == schema


# Labels that are refused.


def test_one_class_only(data_error: Expect) -> None:
    with data_error("'d.csv'", "'label' holds one class only, 'spam'", "at least two"):
        LabelSchema.infer(examples(label=["spam"] * 3))


def test_nearly_one_value_per_row(data_error: Expect) -> None:
    with data_error("nearly one value per row", "30 classes in 30 rows", "right column"):
        LabelSchema.infer(examples(label=[f"id {n}" for n in range(30)]))
    assert LabelSchema.infer(examples(label=[f"id {n}" for n in range(19)])).num_labels == 19
    assert LabelSchema.infer(examples(label=[f"{n // 2}" for n in range(300)])).num_labels == 150


def test_blank_labels(data_error: Expect) -> None:
    with data_error("'label' is empty in row 2"):
        LabelSchema.infer(examples(label=["a", " ", "b"]))


@pytest.mark.parametrize("labels", [["pos", "neg", "pos "], [["pos"], ["neg", "pos "]]])
def test_labels_that_differ_in_blanks(data_error: Expect, labels: list[Any]) -> None:
    with data_error("holds 'pos' and 'pos ', which differ in blanks", "Take the blanks out"):
        LabelSchema.infer(examples(label=labels))


def test_unknown_labels(data_error: Expect) -> None:
    schema = LabelSchema(SINGLE, ("OFFENSE", "OTHER"))
    with data_error(
        "none of those of training: 'Other' (2 rows), 'spam' (1 row).",
        "Those are 'OFFENSE', 'OTHER'.",
        "Did you mean 'OTHER'?",
    ):
        schema.encode(examples(label=["spam", "Other", "OTHER", "Other"]))
    with data_error("and 2 more"):
        schema.encode(examples(label=list("abcdefg")))
    with data_error("'3' (1 row)", "LABEL_0"):
        LabelSchema(SINGLE, ("LABEL_0", "LABEL_1")).encode(examples(label=[0, 3]))
    with data_error("'x' (2 rows)"):
        LabelSchema(MULTI, ("a", "b")).encode(examples(label=[["x", "a"], ["x"]]))


def test_no_numbers(data_error: Expect) -> None:
    with data_error("holds '1,5' in rows 2 and 3, where regression needs numbers", "point"):
        LabelSchema.infer(examples(label=["1", "1,5", "2,5"]), REGRESSION)
    with data_error("holds 'nan' in row 2, where finite numbers are needed"):
        LabelSchema.infer(examples(label=["1.5", "nan"]))
    with data_error("holds 'inf' in row 1"):
        LabelSchema(REGRESSION, ()).encode(examples(label=[float("inf")]))
    with data_error("holds '1e+39' in row 1"):
        LabelSchema(REGRESSION, ()).encode(examples(label=[1e39]))
    with data_error("in rows 1 and 2, where regression needs numbers"):
        LabelSchema.infer(examples(label=[[0.5], [1.0]]), REGRESSION)


def test_other_values_than_zero_and_one(data_error: Expect) -> None:
    with data_error("'b' holds other numbers than 0 and 1, unlike 'a'", "regression"):
        LabelSchema.infer(examples(a=[0, 1], b=[0, 2]))
    with data_error("'b' holds '2' in row 2, where only 0 and 1 are labels"):
        LabelSchema.infer(examples(a=[0, 1], b=[0, 2]), MULTI)
    with data_error("'b' holds 'ja' in row 1"):
        LabelSchema(MULTI, ("a", "b")).encode(examples(a=[1], b=["ja"]))
    with data_error("'b' is one of several ('a', 'b'), but does not hold numbers"):
        LabelSchema.infer(examples(a=[0, 1], b=["x", "y"]))


def test_lists_that_are_no_labels(data_error: Expect) -> None:
    with data_error("lists of numbers with a decimal point"):
        LabelSchema.infer(examples(label=[[0.5, 1.0], [2.5]]))
    with data_error("has a list with a null in row 2"):
        LabelSchema.infer(examples(label=[["a"], ["b", None]]))
    with data_error("no label in any row"):
        LabelSchema.infer(examples(label=[[], []]))
    with data_error("no label in any row"):
        LabelSchema.infer(examples(label=["", " | "]), MULTI)
    with data_error("'label' holds lists where one label per row is needed"):
        LabelSchema.infer(examples(label=[["a"], ["b"]]), SINGLE)


def test_types_that_are_no_labels(data_error: Expect) -> None:
    with data_error("'label' holds the type struct"):
        LabelSchema.infer(examples(label=[{"a": 1}, {"a": 2}]))


def test_mixed_types(write: Any, data_error: Expect) -> None:
    source = write("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": "b"}\n')
    with data_error("'label' holds values of mixed types"):
        LabelSchema.infer(read_examples(source))


def test_requests_that_do_not_fit(data_error: Expect) -> None:
    with data_error("no problem type 'multi_label'", "Did you mean 'multi_label_classification'?"):
        LabelSchema.infer(examples(label=["a", "b"]), "multi_label")
    with data_error("2 label columns are named ('a', 'b'), but each row has one label"):
        LabelSchema.infer(examples(a=[0, 1], b=[0, 1]), SINGLE)
    with data_error("no label columns"):
        data = datasets.Dataset.from_dict({"text": ["a"]})
        LabelSchema.infer(choose_columns(data, label_columns=None))
    with data_error("the label columns are 'a', 'c', but the model was trained for 'a', 'b'"):
        LabelSchema(MULTI, ("a", "b")).encode(examples(a=[0], c=[1]))
    with data_error("trained for one value"):
        LabelSchema(REGRESSION, ()).encode(examples(a=[0], c=[1]))


def test_many_rows_are_encoded_quickly() -> None:
    import time

    rows = examples(label=["a", "b", "c", "d"] * 50_000)
    start = time.perf_counter()
    LabelSchema.infer(rows).encode(rows)
    assert time.perf_counter() - start < 2
