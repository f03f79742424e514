"""A checkpoint with the first rows of a table as a batch: checked, or probed, as a training run would take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.anatomy.origin import Origin, origin_of
from frostline.checkpoints.classifier import load_classifier, position_limit, refuse_strange_tokens
from frostline.checkpoints.quiet_loading import quiet
from frostline.data.examples import read_examples
from frostline.data.labels import LabelSchema
from frostline.data.tokenising import tokenise
from frostline.errors import SettingsError
from frostline.evidence.checks.findings import Findings
from frostline.evidence.checks.run import check
from frostline.evidence.inspect.inspection import open_skeleton
from frostline.evidence.probe.movement import Probe
from frostline.evidence.probe.probe import LEARNING_RATE, probe
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.runs.devices import device_options

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


def check_checkpoint(
    name: str, plan: Plan | None = None, rows: Rows | None = None, *, trust_remote_code: bool = False
) -> Findings:
    """Look for faults in what a plan makes of a checkpoint.

    Args:
        name: A folder or a hub name.
        plan: What is frozen; None to take the model as it stands.
        rows: Training rows that make a batch; None to read only the headers of the weights.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If the model, the plan or the data cannot be used.
    """
    batch: Any = None
    model: nn.Module
    origin: Origin
    if rows is None:
        model, origin = open_skeleton(name, trust_remote_code=trust_remote_code)
    else:
        model, batch = load_with_batch(name, rows, seed=0, trust_remote_code=trust_remote_code)
        origin = origin_of(model)
    if plan is not None:
        Freeze(model, plan)
    return check(model, batch=batch, origin=origin)


def probe_checkpoint(
    name: str,
    rows: Rows,
    plan: Plan | None = None,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int = 42,
    dtype: str = "fp32",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Probe:
    """Load a classifier, freeze it as planned, and probe it on the first rows of a table.

    Args:
        name: A folder or a hub name.
        rows: The rows of the step; all rows of their table are read for their labels.
        plan: What is frozen; None to take the model as it stands.
        learning_rate: Rate of the AdamW that takes the step.
        seed: Seed of new weights and dropout.
        dtype: ``"fp32"``, or ``"bf16"`` for mixed precision.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If settings, data or model cannot be used.
    """
    place = _device(device, dtype)
    model, batch = load_with_batch(name, rows, seed=seed, trust_remote_code=trust_remote_code)
    if plan is not None:
        Freeze(model, plan)
    model.to(place)  # type: ignore[arg-type]
    with quiet():
        return probe(model, batch, lr=learning_rate, autocast=torch.bfloat16 if dtype == "bf16" else None)


def _device(device: str, dtype: str) -> torch.device:
    """The device that a name means.

    Raises:
        SettingsError: If this machine does not have it, or a step cannot be taken in the dtype.
    """
    if dtype == "fp16":
        raise SettingsError("dtype is 'fp16', whose gradient scaler skips the first steps.\nPass --dtype bf16 or fp32.")
    if device_options(device, dtype)["use_cpu"]:
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() and device != "mps" else "mps")
