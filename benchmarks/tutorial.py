"""A script in the manner of transformers' fine-tuning guide, and the same with only the import changed.

Each text is padded to the longest length that the model takes, and every setting is left at its default: batches of
8 rows, 3 epochs, a peak learning rate of 5e-5. The guide's evaluation after each epoch is left out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import transformers

import frostline
from benchmarks.job import Job
from benchmarks.models import load_model, load_tokenizer, predict
from benchmarks.row import Row, Target

if TYPE_CHECKING:
    from benchmarks.case import Case, Predict, Work


def _script(job: Job, case: Case, *, library: Any) -> Work:
    from datasets import Dataset

    tokenizer, model = load_tokenizer(), load_model(job, case)

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["text"], padding="max_length", truncation=True)

    def work() -> Predict:
        dataset = Dataset.from_dict({"text": list(case.train.texts), "label": list(case.train.labels)})
        dataset = dataset.map(tokenize, batched=True)
        arguments = library.TrainingArguments(
            output_dir=str(case.folder), use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True
        )
        trainer = library.Trainer(model=model, args=arguments, train_dataset=dataset)
        trainer.train()
        return partial(predict, model, tokenizer)

    return work


ROWS = (
    Row(
        name="tutorial",
        work='the fine-tuning guide (padding="max_length", batch 8, everything trains, 3 epochs), 192 rows',
        peer="transformers.Trainer; only the import differs",
        job=Job(top=None, epochs=3, rows=192, batch=8),
        ours=partial(_script, library=frostline),
        theirs=partial(_script, library=transformers),
        target=Target(25),
    ),
)
