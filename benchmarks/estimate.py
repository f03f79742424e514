"""What `fl.estimate` predicts beside what a run takes, plan by plan: ``make bench ROW=estimate``.

Each plan is estimated and then trained, each in a process of its own; the estimate sees a configuration and a table of
texts only. Time is that of ``fl.Trainer.train()``; memory is the greatest rise above what is resident before the model
is read, after a warm-up with a tiny model.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.case import Case
from benchmarks.data import load_data
from benchmarks.job import Job
from benchmarks.models import SEED, load_model, load_tokenizer, read_in
from benchmarks.timing import TAIL, RunFailedError, environment
from frostline.base.peak import peak_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT, _LONG = 400, 64  # rows
_FILL = 256  # words of a long text


@dataclass(frozen=True)
class Plan:
    """One plan to estimate.

    Attributes:
        model: The demo's MiniLM, or BERT-base.
        top: How many of the highest layers train, beside pooler and head; None if everything does.
        long: Whether texts are joined until they are long.
        dtype: ``"fp32"`` or ``"bf16"``.
        store: Where activations are kept.
        epochs: Passes over the rows.
    """

    model: Literal["minilm", "base"]
    top: int | None
    long: bool = False
    dtype: Literal["fp32", "bf16"] = "fp32"
    store: Literal["off", "memory", "disk"] = "memory"
    epochs: int = 2

    @property
    def job(self) -> Job:
        """The same as a job of the other rows."""
        return Job(
            top=self.top,
            epochs=self.epochs,
            rows=_LONG if self.long else _SHORT,
            model=self.model,
            bf16=self.dtype == "bf16",
            fill=_FILL if self.long else None,
        )

    def __str__(self) -> str:
        what = "everything" if self.top is None else f"top {self.top}" if self.top else "head"
        return f"{self.model:<6} {'long' if self.long else 'short':<5} {what:<10} {self.dtype} {self.store:<6}"


PLANS = (
    Plan("minilm", 0),
    Plan("minilm", 1),
    Plan("minilm", 2),
    Plan("minilm", 2, store="off"),
    Plan("minilm", 4, store="disk"),
    Plan("minilm", None, store="off"),
    Plan("minilm", 2, dtype="bf16"),
    Plan("minilm", None, dtype="bf16", store="off"),
    Plan("minilm", 2, long=True),
    Plan("minilm", None, long=True, store="off", epochs=1),
    Plan("minilm", 0, long=True, dtype="bf16"),
    Plan("base", 0),
    Plan("base", 2),
    Plan("base", 6, store="off", epochs=1),
    Plan("base", None, store="off", epochs=1),
    Plan("base", 2, dtype="bf16"),
    Plan("base", 2, long=True, epochs=1),
)


@dataclass(frozen=True)
class Found:
    """What was predicted, or measured: seconds, and bytes at the peak."""

    seconds: float
    bytes: int


def predict(plan: Plan, folder: Path) -> Found:
    """Estimate a plan from a configuration and a table."""
    import frostline as fl

    case, texts = _case(plan, folder), folder / "train.csv"
    with texts.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(zip(case.train.texts, case.train.labels, strict=True))
    model = folder / "model"
    load_model(plan.job, case).config.save_pretrained(model)
    load_tokenizer().save_pretrained(model)
    found = fl.estimate(
        model,
        train_only=plan.job.train_only,
        data=str(texts),
        epochs=plan.epochs,
        dtype=plan.dtype,
        store=plan.store,
    )
    return Found(found.seconds, found.peak_bytes)


def measure(plan: Plan, folder: Path) -> Found:
    """Train a plan."""
    import frostline as fl

    case = _case(plan, folder)
    _trainer(fl, plan, replace(case, train=case.train.one_of_each(), tiny=True), {}).train()
    with peak_memory() as peak:
        trainer = _trainer(fl, plan, case, {"store": plan.store})
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return Found(seconds, peak.rise or 0)


def _case(plan: Plan, folder: Path) -> Case:
    data = load_data()
    if plan.job.fill is not None:
        data = data.joined(plan.job.fill)
    return Case(data.train.first(plan.job.rows), data.classes, folder)


def _trainer(library: Any, plan: Plan, case: Case, settings: dict[str, Any]) -> Any:
    from datasets import Dataset
    from transformers import DataCollatorWithPadding

    tokenizer, job = load_tokenizer(), plan.job
    dataset = Dataset.from_dict({"text": list(case.train.texts), "label": list(case.train.labels)}).map(
        lambda rows: tokenizer(rows["text"], truncation=True), batched=True, remove_columns=["text"]
    )
    arguments = library.TrainingArguments(
        output_dir=str(case.folder / "run"),
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.batch,
        seed=SEED,
        bf16=job.bf16,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        store_dir=str(case.folder / "store"),
        **settings,
    )
    return library.Trainer(
        read_in(load_model(job, case)),
        arguments,
        train_dataset=dataset,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_only=job.train_only,
    )


def table(threads: int) -> int:
    """Estimate and train each plan, and print a line for it; then how far they are off.

    Returns:
        0; 1 if a run failed.
    """
    print(f"{'plan':<38} {'predicted':>22} {'measured':>22} {'time':>7} {'memory':>7}", flush=True)
    off: list[tuple[float, float]] = []
    status = 0
    for place, plan in enumerate(PLANS):
        try:
            own, real = (_run(way, place, threads) for way in ("predict", "measure"))
        except RunFailedError as error:
            print(f"{plan!s:<38} {error}", file=sys.stderr)
            status = 1
            continue
        off.append((own.seconds / real.seconds - 1, own.bytes / real.bytes - 1))
        sides = "".join(f" {one.seconds:>10.1f} s {one.bytes / 1e6:>6.0f} MB" for one in (own, real))
        print(f"{plan!s:<38}{sides} {off[-1][0]:>+7.0%} {off[-1][1]:>+7.0%}", flush=True)
    print(*_summary(off), sep="\n")
    return status


def _summary(off: list[tuple[float, float]]) -> Iterator[str]:
    for name, figures in zip(("time", "memory"), zip(*off, strict=True), strict=True):
        sizes = [abs(figure) for figure in figures]
        yield f"{name}: off by {median(sizes):.0%} in the middle, {max(sizes):.0%} at most, of {len(sizes)} plans"


def _run(way: str, place: int, threads: int) -> Found:
    """One side of one plan in a fresh process."""
    with TemporaryDirectory(prefix="frostline-bench-") as name:
        folder = Path(name)
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "benchmarks.estimate", way, str(place), str(folder), str(threads)],
            env=environment(folder, threads),
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-TAIL:])
            raise RunFailedError(f"It ended with status {done.returncode}:\n{tail}")
        return Found(**json.loads((folder / "found.json").read_text(encoding="utf-8")))


def main() -> None:
    """Run one side of one plan, and write what was found."""
    import torch

    way, place, name, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    folder = Path(name)
    found = (predict if way == "predict" else measure)(PLANS[int(place)], folder)
    (folder / "found.json").write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
