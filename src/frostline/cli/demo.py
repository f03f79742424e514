"""``frostline demo``: see, control, train and prove on a small real model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.base.sealing import SEAL_FILE
from frostline.cli import options
from frostline.cli.pages import write_page
from frostline.cli.render import metrics_line, print_inspection, print_proof, print_text
from frostline.cli.train import baseline_lines
from frostline.errors import OutputError, SelectorError

if TYPE_CHECKING:
    from frostline.demo.corpus import Corpus
    from frostline.runs.train_result import TrainResult

FREEZE = "embeddings, layers[:4]"
_TYPO = "encoder.layer.1"
_PAGE = "page.html"


def demo(
    out: Annotated[Path, typer.Option(help="The folder to leave; that of an earlier demo is replaced.")] = Path(
        "frostline-demo"
    ),
) -> None:
    """See, control, train and prove: a real pretrained model on real text, without a network."""
    from frostline.demo.corpus import build_corpus, write_corpus
    from frostline.demo.model import find_demo_model

    target = options.place(out)
    _refuse_other_content(target)
    model = find_demo_model()
    corpus = build_corpus()
    files = write_corpus(corpus, target / "data")
    print_text(
        f"Model: all-MiniLM-L6-v2, a pretrained BERT of 6 layers. Text: {len(corpus.train) + len(corpus.test):,} "
        f"docstrings of Python {corpus.python}'s standard library in {len(corpus.labels)} areas."
    )
    _see(model)
    _control(model)
    result = _train(model, files, target / "model", corpus)
    _prove(result)
    print_text("", "Your own table with the columns text and label:")
    command = f'  {_program()} train --data train.csv --eval test.csv --freeze "{FREEZE}" --out my-model'
    print_text(command, whole=True)
    page = target / _PAGE
    write_page(page, result.to_html())
    print_text("", "The run as a page, to be opened in a browser:")
    print_text(f"  {page}", whole=True)


def _refuse_other_content(target: Path) -> None:
    """Refuse a folder in which something else than an earlier demo lies, whose files the demo would replace."""
    try:
        known = {entry.name for entry in target.iterdir()} - {"data", "model", "model.partial", _PAGE}
    except NotADirectoryError:
        known = {target.name}
    except FileNotFoundError:
        return
    is_demo = (target / "model" / SEAL_FILE).is_file() or (target / "model.partial").is_dir()
    if known or not (is_demo or not any(target.iterdir())):
        raise OutputError(f"'{target}' holds something else than an earlier demo.\nName a new folder with --out.")


def _program() -> str:
    """The command as one would have to type it here."""
    return "frostline" if shutil.which("frostline") else sys.argv[0]


def _see(model: Path) -> None:
    from frostline.evidence.inspect.inspection import inspect

    _title("1. See", "What would train, if nothing is done?")
    print_inspection(inspect(str(model)))


def _control(model: Path) -> None:
    from frostline.evidence.inspect.inspection import inspect_model, open_skeleton
    from frostline.freezing.freeze import freeze

    _title("2. Control", f"Freeze what is named: {FREEZE}.")
    skeleton, origin = open_skeleton(str(model))
    freeze(skeleton, FREEZE)
    print_inspection(inspect_model(skeleton, origin))
    try:
        freeze(skeleton, _TYPO)
    except SelectorError as error:
        print_text(
            "",
            f"A name that means nothing is refused instead of freezing nothing ('{_TYPO}'):",
            str(error),
        )


def _train(model: Path, files: tuple[Path, Path], out: Path, corpus: Corpus) -> TrainResult:
    from frostline.cli.progress import TrainingProgress
    from frostline.runs.train import run_training
    from frostline.runs.train_settings import TrainSettings

    train, test = files
    _title("3. Train", f"{len(corpus.train):,} rows, one epoch, fp32 on the CPU.")
    progress = TrainingProgress()
    try:
        result = run_training(
            TrainSettings(
                model=str(model),
                data=str(train),
                eval_data=str(test),
                freeze=FREEZE,
                epochs=1,
                learning_rate=3e-4,
                max_length=64,
                device="cpu",
            ),
            out,
            overwrite=True,
            callbacks=[progress],
        )
    finally:
        progress.stop()
    if result.engine is not None:
        print_text(str(result.engine))
    print_text(
        f"Kept: {metrics_line(result.metrics)}",
        *baseline_lines(result),
        f"{result.steps} steps in {result.seconds:.0f} s. "
        f"The model is in {result.folder}; plain from_pretrained loads it.",
    )
    return result


def _prove(result: TrainResult) -> None:
    _title("4. Prove", "Every tensor's SHA-256 before the first step and after the last, compared.")
    print_proof(result.proof)


def _title(step: str, text: str) -> None:
    print_text("", f"== {step} == {text}", "")
