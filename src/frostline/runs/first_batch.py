"""A checkpoint as a classifier for a table's labels, with the table's first rows as a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.checkpoints.classifier import load_classifier, position_limit, refuse_strange_tokens
from frostline.checkpoints.quiet import quiet
from frostline.data.examples import read_examples
from frostline.data.labels import LabelSchema
from frostline.data.tokenising import tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Which rows make the batch.

    Attributes:
        data: A file, or a data set's hub name.
        count: Rows in the batch, the first ones.
        text_columns: One column, or two for pairs of texts.
        label_columns: One column, or several.
        problem_type: One of transformers' problem types; None to tell it from the labels.
        max_length: Tokens per row at most; None for what the model can take.
    """

    data: str
    count: int
    text_columns: tuple[str, ...] = ("text",)
    label_columns: tuple[str, ...] = ("label",)
    problem_type: str | None = None
    max_length: int | None = None


def load_with_batch(
    name: str, wanted: Rows, *, seed: int, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a classifier for the labels of a table, and make a batch of its first rows.

    Args:
        name: A folder or a hub name.
        wanted: The rows.
        seed: Seed of the new weights.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The model in eval mode on the CPU, and a padded batch with labels: integer tensors of shape (rows, tokens).

    Raises:
        FrostlineError: If data or model cannot be used.
    """
    from transformers import DataCollatorWithPadding, set_seed

    examples = read_examples(wanted.data, text_columns=wanted.text_columns, label_columns=wanted.label_columns)
    schema = LabelSchema.infer(examples, wanted.problem_type)
    set_seed(seed)  # the new weights are drawn while the model loads
    model, tokenizer = load_classifier(name, trust_remote_code=trust_remote_code, **schema.config_fields)
    encoded = schema.encode(examples)
    first = encoded.select(range(min(wanted.count, len(encoded))))
    rows, _ = tokenise(first, tokenizer, max_length=wanted.max_length, model_limit=position_limit(model))
    refuse_strange_tokens(model, rows, name)
    with quiet():
        return model, dict(DataCollatorWithPadding(tokenizer)([rows[index] for index in range(len(rows))]))
