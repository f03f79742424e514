"""All depths of MiniLM's frost line, one rate, one seed, 3 epochs: one sweep, and a run of its own for each depth."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import frostline as fl
from benchmarks.data import Split, load_data
from benchmarks.job import Job
from benchmarks.models import SEED, load_tokenizer, small_bert
from benchmarks.row import Row, Target
from benchmarks.task import Task
from frostline.demo.model import find_demo_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.task import Loss

JOB = Job(top=None, epochs=3, rows=500)
_EVALUATED = 500  # rows


def make(rows: int, warm_up: bool) -> Task:
    """The training texts, and the model: for the warm-up a small one."""
    from transformers import AutoModelForSequenceClassification

    data = load_data()
    train = data.train.first(rows)
    lengths = [len(ids) for ids in load_tokenizer()(list(train.texts), truncation=True)["input_ids"]]
    found = AutoModelForSequenceClassification.from_pretrained(find_demo_model(), num_labels=data.classes)
    return Task(
        model=small_bert("SequenceClassification", data.classes) if warm_up else found,
        freeze="",
        rows=_table(train),
        collate=None,
        source=data.source,
        tokens=sum(lengths),
    )


def _table(split: Split) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in zip(split.texts, split.labels, strict=True)]


def swept(job: Job, task: Task, folder: Path) -> Callable[[], Loss]:
    """``fl.sweep``; gives the mean loss of all depths on the evaluation rows."""
    from datasets import Dataset

    place = _saved(task, folder)
    for name, table in (("train", task.rows), ("dev", _evaluation())):
        Dataset.from_list(list(table)).to_csv(folder / f"{name}.csv")

    def work() -> Loss:
        out = folder / "swept"
        files = [str(folder / f"{name}.csv") for name in ("train", "dev")]
        fl.sweep(
            str(place),
            *files,
            rates=[job.learning_rate],
            seeds=1,
            epochs=job.epochs,
            batch_size=job.batch,
            seed=SEED,
            device="cpu",
            out=out,
            overwrite=True,
        )
        trials = json.loads((out / "trials.json").read_text(encoding="utf-8"))
        return float(sum(trial["metrics"]["loss"] for trial in trials)) / len(trials)

    return work


def apart(job: Job, task: Task, folder: Path, *, library: str) -> Callable[[], Loss]:
    """A run for each depth with the Trainer of a library, which loads, tokenises, trains and evaluates by itself."""
    from importlib import import_module

    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

    place, module = _saved(task, folder), import_module(library)

    def run(freeze: str) -> Loss:
        set_seed(SEED)
        labels = len({row["label"] for row in task.rows})
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=labels)
        tokenizer = AutoTokenizer.from_pretrained(place)
        train, dev = (
            Dataset.from_list(list(table)).map(
                lambda rows: tokenizer(rows["text"], truncation=True), batched=True, remove_columns=["text"]
            )
            for table in (task.rows, _evaluation())
        )
        if freeze and module is not fl:
            for name in fl.select(model, freeze).names:
                model.get_parameter(name).requires_grad_(requires_grad=False)
        arguments = module.TrainingArguments(
            output_dir=str(folder / "apart"),
            num_train_epochs=job.epochs,
            per_device_train_batch_size=job.batch,
            per_device_eval_batch_size=32,
            learning_rate=job.learning_rate,
            seed=SEED,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        plan = {"freeze": freeze or None} if module is fl else {}
        collator = DataCollatorWithPadding(tokenizer)
        trainer = module.Trainer(
            model, arguments, train_dataset=train, eval_dataset=dev, data_collator=collator, **plan
        )
        trainer.train()
        return float(trainer.evaluate()["eval_loss"])

    def work() -> Loss:
        losses = [run(freeze) for freeze in _depths(task.model)]
        return sum(losses) / len(losses)

    return work


def _depths(model: Any) -> list[str]:
    from frostline.anatomy.origin import Origin
    from frostline.runs.sweep.depths import depths_of

    new = frozenset(name for name, _ in model.named_parameters() if name.startswith("classifier."))
    return [depth.freeze for depth in depths_of(fl.ModelMap.of(model), Origin("it", new=new))]


def _evaluation() -> list[dict[str, Any]]:
    return _table(load_data().test.first(_EVALUATED))


def _saved(task: Task, folder: Path) -> Path:
    """The folder of the model's base, to be loaded with a new head."""
    if task.model.name_or_path:
        return find_demo_model()
    task.model.base_model.save_pretrained(folder / "base")
    load_tokenizer().save_pretrained(folder / "base")
    return folder / "base"


ROWS = (
    Row(
        name="sweep",
        work="all 8 depths, one rate, one seed, 3 epochs, 500 rows",
        peer="a transformers.Trainer for each, same frozen",
        job=JOB,
        ours=swept,
        theirs=partial(apart, library="transformers"),
        target=Target(5),
        task=make,
    ),
)
