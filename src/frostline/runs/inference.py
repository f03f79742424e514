"""Using a finished model: predictions with probabilities, and evaluation."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.anatomy.kinds import kinds_of
from frostline.anatomy.origin import origin_of
from frostline.base.json import read_json
from frostline.checkpoints.classifier import load_classifier, position_limit, refuse_strange_tokens
from frostline.data.examples import choose_columns
from frostline.data.labels import MULTI, REGRESSION, SINGLE, LabelSchema
from frostline.data.messages import counted
from frostline.data.tokenising import tokenise
from frostline.engine.settings import EngineSettings
from frostline.errors import DataError, ModelError, as_given
from frostline.evidence.proof.run_result import METRICS_FILE
from frostline.runs.devices import device_options
from frostline.runs.metrics import THRESHOLD, evaluated, first_output, metrics_for, probabilities
from frostline.runs.train_settings import MOST, require_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import datasets
    from numpy.typing import NDArray

    from frostline.data.examples import Examples

_WORTH_A_CHECK = 128  # rows; the self-check takes a few forwards and backwards of four


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of some texts.

    Attributes:
        schema: What its outputs mean.
        probabilities: float64 of shape (rows, num_labels); for a regression the values themselves.
    """

    schema: LabelSchema
    probabilities: NDArray[np.float64]

    @property
    def names(self) -> tuple[str, ...]:
        """A name per output."""
        return self.schema.names or ("value",)

    @property
    def labels(self) -> list[str]:
        """Per row the most likely label; of several labels those from 0.5 on, joined by ``|``; or the values."""
        if self.schema.problem_type == SINGLE:
            return [self.names[index] for index in self.probabilities.argmax(axis=-1)]
        if self.schema.problem_type == MULTI:
            given = self.probabilities >= THRESHOLD
            return ["|".join(name for name, has in zip(self.names, row, strict=True) if has) for row in given]
        return ["|".join(f"{value:.6g}" for value in row) for row in self.probabilities]

    def rows(self) -> list[dict[str, Any]]:
        """Per row the prediction and the probability (for a regression the value) of each output."""
        kind = "value" if self.schema.problem_type == REGRESSION else "probability"
        return [
            {"prediction": label}
            | {f"{kind}_{name}": float(value) for name, value in zip(self.names, row, strict=True)}
            for label, row in zip(self.labels, self.probabilities, strict=True)
        ]


class Classifier:
    """A trained model with its tokenizer and the meaning of its outputs.

    Args:
        name: The folder of a run, or any sequence classifier's folder or hub name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        batch_size: Rows per step.
        max_length: Tokens per row at most; None for what the model can take.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ModelError: If the model cannot be loaded, or its head was never trained.
        SettingsError: If the batch size is out of its range.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        batch_size: int = 32,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        require_number("batch_size", batch_size, least=1, most=MOST)
        self._name = name
        self.model, self.tokenizer = load_classifier(name, trust_remote_code=trust_remote_code)
        new = origin_of(self.model).filled(kinds_of(self.model)["adapters"]).new
        if new:
            raise ModelError(
                f"'{name}' is no trained classifier: its checkpoint lacks {', '.join(sorted(new)[:3])}.\n"
                "Train it first: frostline train."
            )
        self.schema = LabelSchema.from_config(self.model.config)
        self._device = device
        self._batch_size = batch_size
        self._max_length = max_length

    def predict(self, examples: Examples) -> Predictions:
        """Predict the labels of texts.

        Args:
            examples: Texts, or pairs of texts; labels are not looked at.

        Raises:
            DataError: If they are pairs and the model was trained on single texts, or the other way round.
        """
        texts = examples.dataset.remove_columns(list(examples.label_columns))
        tokenised, order = _by_length(self._tokenised(texts, examples))
        output = self._trainer(len(tokenised)).predict(tokenised)
        logits = first_output(output.predictions)[order.argsort()]
        return Predictions(self.schema, probabilities(logits, self.schema.problem_type))

    def evaluate(self, examples: Examples) -> dict[str, float]:
        """Compare the predictions with given labels.

        Args:
            examples: Texts with labels that the model knows.

        Returns:
            The metrics of the problem type, and ``loss``.

        Raises:
            DataError: If a label is unknown to the model, or as for `predict`.
        """
        tokenised = _by_length(self._tokenised(self.schema.encode(examples), examples))[0]
        return evaluated(self._trainer(len(tokenised)).evaluate(tokenised))

    def _tokenised(self, dataset: datasets.Dataset, examples: Examples) -> datasets.Dataset:
        _refuse_other_width(self._name, examples)
        limit = position_limit(self.model)
        tokenised = tokenise(dataset, self.tokenizer, max_length=self._max_length, model_limit=limit)[0]
        refuse_strange_tokens(self.model, tokenised, self._name)
        return tokenised

    def _trainer(self, rows: int) -> Any:
        """A Trainer that runs batches padding-free, where there are rows enough for the self-check to pay."""
        from transformers import (
            DataCollatorWithPadding,
            PrinterCallback,
            Trainer,
            TrainingArguments,
        )

        from frostline.engine.engine import Engine

        engine = Engine(self.model, EngineSettings()) if rows >= _WORTH_A_CHECK else None

        class Inference(Trainer):
            def prediction_step(self, *arguments: Any, **options: Any) -> Any:
                with engine.active() if engine is not None else nullcontext():
                    return super().prediction_step(*arguments, **options)

        with tempfile.TemporaryDirectory() as unused:
            trainer = Inference(
                model=self.model,
                args=TrainingArguments(
                    output_dir=unused,
                    per_device_eval_batch_size=self._batch_size,
                    report_to="none",
                    disable_tqdm=True,
                    label_names=["labels"],
                    **device_options(self._device, "fp32"),
                ),
                data_collator=DataCollatorWithPadding(self.tokenizer),
                compute_metrics=metrics_for(self.schema.problem_type),
            )
        trainer.remove_callback(PrinterCallback)
        return trainer


def _by_length(tokenised: datasets.Dataset) -> tuple[datasets.Dataset, NDArray[np.int64]]:
    """The rows sorted by length, so that batches need little padding, and the places that they had."""
    from frostline.training.filling_pass import lengths_of

    lengths = lengths_of(tokenised)
    order = lengths.argsort(kind="stable") if lengths is not None else np.arange(len(tokenised))
    return tokenised.select(order), order


def _refuse_other_width(name: str, examples: Examples) -> None:
    """Refuse pairs for a model that a run trained on single texts, and single texts for one trained on pairs."""
    try:
        metrics = read_json(Path(name).expanduser() / METRICS_FILE)
        columns = metrics["settings"]["text_columns"]
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):  # a model of another origin: nobody knows
        return
    if len(columns) == len(examples.text_columns):
        return
    if len(columns) == 1:
        raise DataError(f"'{name}' was trained on single texts; given were pairs.\nGive one text per row.")
    raise DataError(
        f"'{name}' was trained on pairs of texts ({', '.join(columns)}); given were single texts.\n"
        f"Give the second ones too: --pair TEXT on the command line, --text-column {','.join(columns)} for a table."
    )


def examples_of(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Examples:
    """Make examples of texts given in the program or on the command line.

    Args:
        texts: The texts.
        pairs: The second text of each pair.

    Raises:
        DataError: If they are no list of texts, a text is empty or no valid Unicode, or a text has no partner.
    """
    from datasets import Dataset

    for what, given in (("texts are", texts), ("second texts are", pairs)):
        if isinstance(given, str | bytes):
            raise DataError(f"The {what} {as_given(given)}.\nGive a list of texts, also of one.")
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(
            f"There are {counted(len(texts), 'text')}, but {counted(len(pairs), 'second text')}.\n"
            "Give one second text per text."
        )
    for place, text in enumerate((*texts, *(pairs or ()))):
        which = "text" if place < len(texts) else "second text"
        which = f"{which.capitalize()} {place % len(texts) + 1}" if len(texts) > 1 else f"The {which}"
        if not isinstance(text, str):
            raise DataError(f"{which} is {as_given(text)}.\nGive texts with words in them.")
        if not text.strip():
            raise DataError(f"{which} is empty ({text!r}).\nGive texts with words in them.")
        try:
            text.encode()
        except UnicodeEncodeError:  # bytes of another encoding, as a terminal hands them over
            raise DataError(f"The text {text!r} is not valid Unicode.\nGive it in UTF-8.") from None
    columns = {"text": list(texts)} | ({"text_pair": list(pairs)} if pairs is not None else {})
    return choose_columns(
        Dataset.from_dict(columns),
        source="the command line",
        text_columns=tuple(columns),
        label_columns=None,
    )
