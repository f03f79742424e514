"""The two sides: Frostline, and what people use today."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.models import SEED, freeze_below, load_model, load_tokenizer, predict, read_in, with_lora
from frostline.demo.model import find_demo_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.case import Case, Predict, Work
    from benchmarks.job import Job


def frostline(job: Job, case: Case) -> Work:
    """``fl.Trainer`` with its defaults."""
    import frostline as fl

    model = load_model(job, case)
    if job.rank is not None:
        model = with_lora(model, job.top or 0, job.rank)
    return _training(fl, model, job, case, {"train_only": job.train_only}, {})


def transformers_trainer(job: Job, case: Case, **settings: Any) -> Work:
    """``transformers.Trainer``, the same parameters frozen by hand, with further training arguments if wanted."""
    import transformers

    model = load_model(job, case)
    if job.rank is not None:
        model = with_lora(model, job.top or 0, job.rank)
    elif job.top is not None:
        freeze_below(model, job.top)
    return _training(transformers, model, job, case, {}, settings)


def _training(library: Any, model: Any, job: Job, case: Case, plan: dict[str, Any], settings: dict[str, Any]) -> Work:
    from datasets import Dataset
    from transformers import DataCollatorWithPadding

    tokenizer = load_tokenizer()

    def work() -> Predict:
        dataset = Dataset.from_dict({"text": list(case.train.texts), "label": list(case.train.labels)}).map(
            lambda rows: tokenizer(rows["text"], truncation=True), batched=True, remove_columns=["text"]
        )
        arguments = library.TrainingArguments(
            output_dir=str(case.folder),
            num_train_epochs=job.epochs,
            per_device_train_batch_size=job.batch,
            learning_rate=job.learning_rate,
            seed=SEED,
            bf16=job.bf16,
            use_cpu=not job.cuda,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            label_names=["labels"],  # the forward of a model with adapters does not name them
            **settings,
        )
        collator = DataCollatorWithPadding(tokenizer)
        library.Trainer(model, arguments, train_dataset=dataset, data_collator=collator, **plan).train()
        return partial(predict, model, tokenizer)

    return work


def embedding_and_regression(_job: Job, case: Case) -> Work:
    """sentence-transformers once over the texts, and scikit-learn's LogisticRegression on what it gives."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = read_in(SentenceTransformer(str(find_demo_model()), device="cpu"))

    def work() -> Predict:
        features = encoder.encode(list(case.train.texts), show_progress_bar=False)  # (rows, 384)
        head = LogisticRegression(max_iter=1_000).fit(features, case.train.labels)

        def label(texts: Sequence[str]) -> list[int]:
            found: list[int] = head.predict(encoder.encode(list(texts), show_progress_bar=False)).tolist()
            return found

        return label

    return work
