"""The rows that random models are trained on, and how they are made into batches."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from tests.dropin import rows

if TYPE_CHECKING:
    from tests.dropin.random_recipes import Recipe

FEATURES = 24
MARK = 59
_LENGTHS = {"mixed": (3, 24), "short": (3, 8), "alike": (12, 12), "wide": (3, 40)}


def given(recipe: Recipe) -> dict[str, Any]:
    """What a Trainer is given: rows to train on, six held out, and a collator."""
    return {
        "data_collator": partial(_collated, recipe=recipe),
        "train_dataset": Dataset.from_list(_rows(recipe, recipe.rows, recipe.seed)),
        "eval_dataset": Dataset.from_list(_rows(recipe, 6, recipe.seed + 1)),
    }


def _rows(recipe: Recipe, count: int, seed: int) -> list[rows.Row]:
    draw = random.Random(seed)  # noqa: S311 - no secret
    shortest, longest = _LENGTHS[recipe.lengths]
    distinct = max(2, count // 3) if recipe.repeats else count
    texts = [_text(recipe, draw, shortest, longest) for _ in range(distinct)]
    made = []
    for index in range(count):
        row = rows.encoded([texts[index % distinct]])[0] | {"labels": _label(recipe, draw, index)}
        if recipe.second == "text":
            row |= rows.encoded([_text(recipe, draw, 3, 24)], "_b")[0]
        if recipe.second in {"features", "segments"}:
            row["features"] = [draw.uniform(-2, 2) for _ in range(FEATURES)]
        made.append(row)
    return made


def _text(recipe: Recipe, draw: random.Random, shortest: int, longest: int) -> list[int]:
    ids = [1, *(draw.randint(3, 58) for _ in range(draw.randint(shortest, longest) - 2)), 2]
    if recipe.pads and draw.random() < 0.3:
        ids[draw.randrange(1, len(ids))] = 0
    if recipe.pooling == "mark":  # most at the start
        ids[0 if draw.random() < 0.8 else draw.randrange(len(ids))] = MARK
    return ids


def _label(recipe: Recipe, draw: random.Random, index: int) -> Any:
    if recipe.loss == "classes":
        return index % 2
    if recipe.loss == "value":
        return draw.uniform(-1, 1)
    return [float(draw.random() < 0.5) for _ in range(3)]


def _collated(batch: list[rows.Row], *, recipe: Recipe) -> dict[str, Any]:
    options: dict[str, Any] = {"longest": {}, "fixed": {"width": 40}, "by 8": {"multiple": 8}}[recipe.padding]
    inputs = rows.padded(batch, left=recipe.side == "left", **options)
    first = len(batch[0]["input_ids"])
    if recipe.second == "segments at times" and first % 2:
        inputs["token_type_ids"] = (inputs["input_ids"] % 2) * inputs["attention_mask"]
    if recipe.second == "name":
        inputs["name"] = "mean" if first % 2 else "first"
    return inputs
