"""A sweep: each depth of the frost line trained with a rate of its own and several seeds, and compared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from frostline.base.files import existing_folder, room_on_disk
from frostline.base.json import write_json
from frostline.base.logging import get_logger
from frostline.base.sealing import Seal
from frostline.data.messages import counted
from frostline.errors import MissingExtraError, SettingsError
from frostline.runs.output_folder import SWEEP_FILE, OutputFolder
from frostline.runs.sweep.budget import Budget, Way, weight
from frostline.runs.sweep.depths import Depth, depths_of
from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.picking import picked_row
from frostline.runs.sweep.picture import save
from frostline.runs.sweep.record import Record
from frostline.runs.sweep.result import SweepResult
from frostline.runs.sweep.row import SweepRow
from frostline.runs.sweep.settings import SweepSettings, seconds_of
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.runs.sweep.tuning import rates_around, tuned_rate
from frostline.runs.sweep.verdict import verdict
from frostline.runs.sweep.worker import TUNED_ON, Worker, refuse_unknown_trackers
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from frostline.training.shared_pass import SharedPass

TRIALS_FILE, TABLE_FILE, MODEL_FOLDER, TRACKED_FOLDER = "trials.json", "sweep.txt", "model", "tracked"
_DISK = 0.5  # of the free space, for the stores of a sweep
# What is being done, how much of the work is behind, and of how much.
Progress = Callable[[str, float, float], None]


def silent(what: str, done: float, total: float) -> None:
    """Tell nobody."""


def sweep(
    model: str,
    data: str,
    eval_data: str,
    *,
    depths: Sequence[int] | None = None,
    bands: bool = False,
    presets: Sequence[str] = (),
    rates: Sequence[float] | None = None,
    seeds: int = 3,
    epochs: float | None = 3,
    budget: str | None = None,
    pick: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report_to: Sequence[str] = (),
    **settings: Any,
) -> SweepResult:
    """Compare accuracy and cost of all depths of the frost line, on your own data.

    Args:
        model: A folder or a hub name.
        data: Where the training rows are, as ``frostline train`` takes them.
        eval_data: Where the evaluation rows are, or the share of the training rows that is held out: ``"20%"``.
        depths: Numbers of frozen layers; None for all depths.
        bands: Whether single bands of layers are compared as well.
        presets: Names of schedules that are compared as well.
        rates: Learning rates to choose from at each depth; one is not tuned. None for those around the usual one.
        seeds: How often each depth is trained.
        epochs: Passes over the data; None to choose by how many rows there are.
        budget: How long it should take: ``"90s"``, ``"30m"``, ``"1.5h"``; None for as long as it takes.
        pick: ``"best"`` or ``"fastest-within 1pt"``: which depth is trained and saved in ``out``.
        out: The folder to leave; None to leave nothing.
        resume: Whether to go on with an interrupted sweep.
        overwrite: Whether a folder that is there is replaced.
        report_to: Names of trackers, as transformers knows them, that get a run per row and seed.
        **settings: Further fields of `TrainSettings`: ``batch_size``, ``max_length``, ``text_columns`` …

    Returns:
        The rows and the verdict; print it, ``.plot()`` it, or take it ``.to_pandas()``.

    Raises:
        FrostlineError: If settings, data, model or output folder cannot be used.
    """
    asked = SweepSettings(
        run=TrainSettings(model=model, data=data, eval_data=eval_data, epochs=epochs, **settings),
        depths=tuple(depths) if depths is not None else None,
        bands=bands,
        presets=tuple(presets),
        rates=tuple(rates) if rates is not None else None,
        seeds=seeds,
        budget=seconds_of(budget) if budget is not None else None,
        pick=pick,
        report_to=tuple(report_to),
    )
    return run_sweep(asked, Path(out) if out is not None else None, resume=resume, overwrite=overwrite)


def run_sweep(
    settings: SweepSettings,
    out: Path | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> SweepResult:
    """Run a sweep.

    Args:
        settings: What to do.
        out: The folder to leave, which appears when all is done; None to leave nothing.
        resume: Whether to go on with an interrupted sweep of the same settings.
        overwrite: Whether a folder that is there is replaced.
        on_progress: Is told what is being done, and how far it is.

    Raises:
        FrostlineError: If settings, data, model or output folder cannot be used.
        KeyboardInterrupt: If it is interrupted; what is done is kept.
    """
    if out is None and (settings.pick is not None or resume):
        raise SettingsError("A sweep that leaves no folder has no place for a model, and nothing to resume.\nGive out.")
    refuse_unknown_trackers(settings.report_to)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as place:
        folder = OutputFolder(Path(place) / "sweep" if out is None else out)
        folder.refuse_to_hold_what_is_read(settings.run)
        with folder.claim(resume=resume, overwrite=overwrite), room_on_disk(folder.target, can_resume=folder.can_go_on):
            try:
                result = _Sweep(settings, folder, on_progress).run()
            except KeyboardInterrupt:
                if folder.can_go_on():
                    get_logger().warning("Stopped; the runs that are done are kept. Go on with --resume.")
                raise
    return result if out is not None else replace(result, folder=None)


class _Sweep:
    """One sweep in its folder."""

    def __init__(self, settings: SweepSettings, folder: OutputFolder, on_progress: Progress) -> None:
        self._settings = settings
        self._folder = folder
        self._told = on_progress
        on_progress("reading model and data", 0, 1)
        self._worker = Worker(settings.run, folder.stores, folder.tracked)
        self._depths = depths_of(
            self._worker.anatomy,
            self._worker.origin,
            settings.depths,
            bands=settings.bands,
            presets=settings.presets,
        )
        folder.remember(settings.to_dict() | self._worker.digests)
        self._record = Record(folder.trials)
        self._results: dict[Trial, TrialResult] = {}
        self._named = {(depth.freeze, depth.preset): depth for depth in self._depths}
        self._done = self._total = 0.0
        self._notes: list[str] = []

    def run(self) -> SweepResult:
        """Tune, train and compare; leave the folder."""
        shared = self._share()
        rates = self._rates(shared)
        rounds = self._trained(rates, shared)
        rows = self._rows(rounds, shared)
        result = SweepResult(
            rows=rows,
            verdict=verdict(rows),
            model=self._settings.run.model,
            train_rows=self._worker.rows,
            eval_rows=self._worker.eval_rows,
            epochs=self._worker.epochs(),
            seconds=self._spent(shared),
            shared_seconds=shared.seconds,
            notes=tuple(self._notes),
            folder=self._folder.target,
            settings=self._settings.run.to_dict(),
        )
        if self._settings.pick is not None:
            result = self._pick(result)
        return self._leave(result)

    def _share(self) -> SharedPass:
        """Fill the stores of all depths, unless that was done before the interruption."""
        run = self._settings.run
        done = self._record.shared_pass()
        if done is not None:
            return done
        can = run.engine and run.store != "off" and run.frozen_mode == "eval"
        freezes = [depth.freeze for depth in self._depths if not depth.preset] if can else []
        free = shutil.disk_usage(existing_folder(self._folder.work)).free
        done = self._worker.fill(freezes, int(_DISK * free), partial(self._told, "storing the frozen parts"))
        self._record.put_shared_pass(done)
        return done

    def _trial(self, trial: Trial) -> TrialResult:
        """The result of a trial, run unless it was before."""
        what = "choosing rates" if trial.part == "tuning" else f"seed {trial.seed}"
        depth = self._named[trial.freeze, trial.preset]
        self._told(f"{what}: {depth.name}", self._done, self._total)
        result = self._record.get(trial)
        if result is None:
            result = self._worker.run(trial, self._settings.report_to if trial.part == "all" else ())
            self._record.put(result)
        self._results[trial] = result
        self._done += weight(depth) * trial.share * (TUNED_ON if trial.part == "tuning" else 1.0)
        return result

    def _spent(self, shared: SharedPass) -> float:
        return shared.seconds + sum(result.seconds for result in self._results.values())

    def _rates(self, shared: SharedPass) -> dict[Depth, float | None]:
        """Choose the rate of each depth, on training rows only; a schedule has its own unless rates are given."""
        seed = self._settings.run.seed
        full = self._depths[0]
        given = {
            depth: self._settings.rates or rates_around(self._worker.usual_rate(depth.freeze))
            for depth in self._depths
            if self._settings.rates or not depth.preset
        }
        count = len(given[full])
        budget = self._budget(list(given), count)
        way: Way = "whole"
        if budget.seconds is not None and count > 1:
            first = self._trial(Trial("", given[full][count // 2], seed, "tuning"))
            self._done = 0.0
            left = replace(budget, seconds=max(0.0, budget.seconds - shared.seconds))
            way = left.way_to_tune(first.seconds / (weight(self._depths[0]) * TUNED_ON))
        if way == "halved":
            self._notes.append("The budget asked for successive halving of the learning rates.")
        if way == "none":
            self._notes.append("The budget left no time to choose learning rates: they are the usual ones.")
        self._total = budget.tuning(way) + budget.seeds * budget.round
        chosen = {
            depth: rates[count // 2]
            if way == "none"
            else tuned_rate(depth, rates, seed, self._trial, _macro_f1, halves=way == "halved")
            for depth, rates in given.items()
        }
        return {depth: chosen.get(depth) for depth in self._depths}

    def _budget(self, tuned: Sequence[Depth], rates: int) -> Budget:
        return Budget(self._settings.budget, self._depths, tuned, rates, self._settings.seeds, TUNED_ON)

    def _trained(self, rates: dict[Depth, float | None], shared: SharedPass) -> list[list[TrialResult]]:
        """Per seed the runs of all depths, as far as the budget goes; the first seed's in any case."""
        budget = self._budget((), 1)
        rounds: list[list[TrialResult]] = []
        for number in range(self._settings.seeds):
            if rounds and not budget.fits(self._spent(shared), sum(result.seconds for result in rounds[0])):
                asked = counted(self._settings.seeds, "seed")
                self._notes.append(f"The budget ended after {len(rounds)} of {asked}.")
                break
            seed = self._settings.run.seed + number
            trials = [Trial(depth.freeze, rates[depth], seed, "all", preset=depth.preset) for depth in self._depths]
            rounds.append([self._trial(trial) for trial in trials])
        self._told("comparing", self._total, self._total)
        return rounds

    def _rows(self, rounds: list[list[TrialResult]], shared: SharedPass) -> tuple[SweepRow, ...]:
        return tuple(
            _row(depth, results, rounds, shared)
            for depth, results in zip(self._depths, zip(*rounds, strict=True), strict=True)
        )

    def _pick(self, result: SweepResult) -> SweepResult:
        """Train the row that is asked for as ``frostline train`` does, and say which it is."""
        row = picked_row(result.rows, self._settings.within)
        self._told(f"training the picked one: {row.name}", self._total, self._total)
        if not self._folder.picked.exists():
            run = replace(
                self._settings.run,
                freeze=row.freeze or None,
                schedule=row.preset or None,
                learning_rate=row.learning_rate,
                store_dir=str(self._folder.stores),
            )
            run_training(run, self._folder.picked, overwrite=True)
        note = f"Picked ({self._settings.pick}): {row.action}; the model is in {MODEL_FOLDER}/."
        return replace(result, notes=(*result.notes, note))

    def _leave(self, result: SweepResult) -> SweepResult:
        """Write the results, the picture and the picked model into the folder."""
        with self._folder.publish() as staged:
            try:
                save(result.rows, staged)
            except MissingExtraError as missing:
                result = replace(result, notes=(*result.notes, f"No picture: {str(missing).splitlines()[0]}"))
            for place, name in ((self._folder.picked, MODEL_FOLDER), (self._folder.tracked, TRACKED_FOLDER)):
                if place.exists():
                    place.rename(staged / name)
            write_json(staged / SWEEP_FILE, result.to_dict())
            write_json(staged / TRIALS_FILE, [one.to_dict() for one in self._results.values()])
            (staged / TABLE_FILE).write_text(f"{result}\n", encoding="utf-8")
            Seal.of(staged).write(staged)
        return result


def _macro_f1(result: TrialResult) -> float:
    return result.metrics["macro_f1"]


def _row(
    depth: Depth, results: Sequence[TrialResult], rounds: Sequence[Sequence[TrialResult]], shared: SharedPass
) -> SweepRow:
    accuracy = Interval.of([result.metrics["accuracy"] for result in results])
    full = Interval.of([row[0].metrics["accuracy"] for row in rounds])
    peaks = [result.peak_bytes for result in results if result.peak_bytes is not None]
    seconds = sum(result.seconds for result in results) / len(results)
    # A schedule replays from several of the stores: what filling them takes is that of the deepest.
    filling = max(shared.shares.values(), default=0.0) if depth.preset else shared.shares.get(depth.freeze, 0.0)
    return SweepRow(
        freeze=depth.freeze,
        name=depth.name,
        accuracy=accuracy,
        macro_f1=Interval.of([_macro_f1(result) for result in results]),
        difference=accuracy.minus(full) if depth.freeze or depth.preset else None,
        seconds=seconds + filling,
        peak_bytes=max(peaks) if peaks else None,
        trainable=results[0].trainable / results[0].parameters,
        learning_rate=results[0].trial.learning_rate,
        preset=depth.preset,
    )
