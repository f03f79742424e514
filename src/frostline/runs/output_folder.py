"""Output folders that appear complete or not at all.

A run works in ``OUT.partial`` beside the folder it was asked for; what is finished is renamed into place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from frostline.base.json import read_json
from frostline.base.logging import get_logger
from frostline.base.sealing import SEAL_FILE, Seal
from frostline.data.sources import place_of
from frostline.errors import OutputError
from frostline.evidence.proof.run_result import METRICS_FILE, PROOF_FILE
from frostline.runs.train_settings import TrainSettings, given
from frostline.training.checkpoints import ASIDE, newest_sealed

_LOCK_FILE = ".lock"
_SETTINGS_FILE = "run.json"
_CHECKPOINTS = "checkpoints"
_STAGED = "model"
_REPLACED = "replaced"
_TRIALS, _STORES, _PICKED, _TRACKED = "trials", "stores", "picked", "tracked"
_OURS = {_LOCK_FILE, _SETTINGS_FILE, _CHECKPOINTS, _STAGED, _REPLACED, _TRIALS, _STORES, _TRACKED}
_OURS |= {_PICKED, f"{_PICKED}.partial"}
_OUR_CHECKPOINTS = re.compile(rf"({ASIDE}-\d+-)?checkpoint-\d+|{re.escape(PROOF_FILE)}")
SWEEP_FILE = "sweep.json"
_LEFT_BY_A_RUN, _LEFT_BY_A_SWEEP = {PROOF_FILE, METRICS_FILE}, {SWEEP_FILE}
# What is compared beside the options: digests of the rows, which would tell the user nothing.
_IN_WORDS = {
    "train_digest": "other training rows",
    "eval_digest": "other evaluation rows",
    "peft_digest": "another configuration in the file of --peft",
    "chosen": "other epochs or another learning rate, chosen by another version",
}


class OutputFolder:
    """The folder that a run will leave, and the one beside it that the run works in.

    Attributes:
        target: The folder asked for.
        work: ``OUT.partial``: checkpoints and whatever else a run needs to go on later.
    """

    def __init__(self, target: Path) -> None:
        self.target = _named(target)
        self.work = self.target.with_name(f"{self.target.name}.partial")
        self._may_replace = False
        self._starts_anew = False
        self._resumes = False

    @property
    def checkpoints(self) -> Path:
        """Where the Trainer keeps its checkpoints."""
        return self.work / _CHECKPOINTS

    @property
    def trials(self) -> Path:
        """Where a sweep keeps what came of its runs."""
        return self.work / _TRIALS

    @property
    def stores(self) -> Path:
        """Where a sweep keeps the stores that its runs share."""
        return self.work / _STORES

    @property
    def tracked(self) -> Path:
        """Where the trackers of a sweep write their files."""
        return self.work / _TRACKED

    @property
    def picked(self) -> Path:
        """Where a sweep leaves the model that it trains in the end."""
        return self.work / _PICKED

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Reserve the folder for one run.

        Args:
            resume: Whether to go on with an interrupted run.
            overwrite: Whether what is there may be replaced, once the new run is complete.

        Raises:
            OutputError: If the folder is in use, holds something, or has nothing to resume.
        """
        from filelock import FileLock, Timeout

        try:
            self._check_target(resume=resume, overwrite=overwrite)
            self._check_work_is_ours()
        except OSError as error:
            raise OutputError(f"'{self.target}' cannot be read: {error.strerror}.\nChoose another --out.") from None
        missing = [folder for folder in self.work.parents if not folder.exists()]
        is_ours = not self.work.exists()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"'{self.target}' cannot be written: {error.strerror}.\nChoose another --out.") from None
        lock = FileLock(self.work / _LOCK_FILE)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                f"Another run is writing to '{self.target}'.\nChoose another --out, or wait for it."
            ) from None
        except OSError as error:
            raise OutputError(f"'{self.work}' cannot be written: {error.strerror}.\nChoose another --out.") from None
        try:
            self._may_replace = overwrite
            if self._put_back():
                get_logger().warning(f"'{self.target}' is back: an earlier run was stopped while it replaced it.")
                self._check_target(resume=resume, overwrite=overwrite)
            self._check_interrupted(resume=resume, overwrite=overwrite)
            self._starts_anew, self._resumes = not resume, resume
            is_ours = True
            yield
        finally:
            if is_ours and not self.can_go_on() and not (self.work / _REPLACED).exists():
                shutil.rmtree(self.work, ignore_errors=True)  # nothing to resume from
            lock.release()
            with suppress(OSError):  # one that holds something stays
                for folder in missing:
                    folder.rmdir()

    def _check_target(self, *, resume: bool, overwrite: bool) -> None:
        if self.target.is_symlink():  # one that leads somewhere was followed
            raise OutputError(f"'{self.target}' is a link that leads back to itself.\nChoose a folder for --out.")
        if self.target.exists() and not self.target.is_dir():
            raise OutputError(f"'{self.target}' is a file.\nChoose a folder for --out.")
        if self.target.is_dir() and any(self.target.iterdir()):
            if resume and not overwrite and not self.work.exists() and (self.target / SEAL_FILE).is_file():
                raise OutputError(
                    f"The run in '{self.target}' is complete; there is nothing to resume.\nChoose another --out."
                )
            if not overwrite:
                raise OutputError(f"The folder '{self.target}' is in use.\nChoose another --out, or pass --overwrite.")
            self._refuse_what_no_run_left()
        if os.path.ismount(self.target):  # it could not be renamed when the run is complete
            raise OutputError(f"'{self.target}' is where a file system is mounted.\nChoose a folder in it for --out.")

    def _refuse_what_no_run_left(self) -> None:
        """Refuse to replace anything but what an earlier run left, and nothing else beside it."""
        try:
            seal = Seal.read(self.target)
        except (OSError, ValueError):
            seal = Seal({})
        if not any(seal.files.keys() >= left for left in (_LEFT_BY_A_RUN, _LEFT_BY_A_SWEEP)):
            raise OutputError(
                f"The folder '{self.target}' shows no earlier run, so --overwrite does not replace it.\n"
                "Move it, or choose another --out."
            )
        strangers = seal.beside(self.target)
        if strangers:
            raise OutputError(
                f"'{self.target}' holds {strangers[0]!r}, which no run left; --overwrite would delete it.\n"
                "Move it, or choose another --out."
            )

    def refuse_to_hold_what_is_read(self, settings: TrainSettings) -> None:
        """Refuse a folder, or one to work in, that holds what the run reads.

        Raises:
            OutputError: If it does.
        """
        read = {"model": settings.model, "data": settings.data, "evaluation data": settings.eval_data}
        for what, named in read.items():
            place = place_of(named) if named is not None else None
            if place is not None:
                self.refuse_to_hold(place, what)

    def refuse_to_hold(self, place: Path, what: str) -> None:
        """Refuse a folder, or one to work in, that holds a file or folder.

        Args:
            place: A file or folder.
            what: What it is, in words.

        Raises:
            OutputError: If it does.
        """
        for folder in (self.target, self.work):
            if os.path.isdir(folder) and place.resolve().is_relative_to(folder.resolve()):  # noqa: PTH112 - of any name
                raise OutputError(f"'{folder}' holds the {what} of this run, '{place}'.\nChoose another --out.")

    def _check_work_is_ours(self) -> None:
        """Refuse a folder that only happens to be called as ours would be: it is cleared for a new run."""
        if not self.work.is_dir():
            return
        names = {entry.name for entry in self.work.iterdir()}
        checkpoints = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        strangers = [entry.name for entry in checkpoints if not _OUR_CHECKPOINTS.fullmatch(entry.name)]
        if names - _OURS or strangers or (names and not names & {_LOCK_FILE, _SETTINGS_FILE}):
            raise OutputError(
                f"'{self.work}', where the run would work, holds something else.\nMove it, or choose another --out."
            )

    def _check_interrupted(self, *, resume: bool, overwrite: bool) -> None:
        interrupted = self.can_go_on()
        if resume and not interrupted:
            if (self.work / _SETTINGS_FILE).exists():
                raise OutputError(
                    f"The run at '{self.work}' was stopped before it had a whole checkpoint to resume from.\n"
                    "Start it without --resume."
                )
            raise OutputError(f"There is no interrupted run at '{self.work}' to resume.\nStart it without --resume.")
        if interrupted and not resume and not overwrite:
            raise OutputError(
                f"An interrupted run is at '{self.work}'.\nGo on with it by --resume, or start anew by --overwrite."
            )

    def _clear(self) -> None:
        for child in self.work.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
            elif child.name != _LOCK_FILE:
                child.unlink()

    def remember(self, settings: Mapping[str, Any]) -> None:
        """Note the settings of the run, or compare them with those of the run that is resumed.

        What an interrupted run left is cleared away here if this one starts anew: by now its data and its model
        are known to be fit for use.

        Raises:
            OutputError: If they differ, where the message names the first that does, or are not known.
        """
        if self._starts_anew:
            self._clear()
            self._starts_anew = False
        file = self.work / _SETTINGS_FILE
        current = json.loads(json.dumps(settings))
        try:
            earlier = dict(read_json(file))
        except (OSError, ValueError, TypeError):
            if self._resumes:
                raise OutputError(
                    f"'{file}' cannot be read, so the settings of the interrupted run are not known.\n"
                    "Start anew by --overwrite."
                ) from None
            file.write_text(json.dumps(current, indent=1), encoding="utf-8")
            return
        for key, value in current.items():
            if key not in earlier or earlier[key] != value:
                differs = _IN_WORDS.get(key) or f"{given(key, earlier.get(key))}; this one has {given(key, value)}"
                raise OutputError(
                    f"The interrupted run had {differs}.\nResume with the same settings, or start anew by --overwrite."
                )

    def _put_back(self) -> bool:
        """Give the target back its folder, if a run was stopped between moving it away and filling its place.

        Raises:
            OutputError: If it cannot be moved; the message says where it is.
        """
        replaced = self.work / _REPLACED
        if self.target.exists() or not replaced.exists():
            return False
        try:
            replaced.rename(self.target)
        except OSError as error:
            raise OutputError(
                f"'{self.target}' is in '{replaced}' and cannot be moved back: {error.strerror}.\nMove it by hand."
            ) from None
        return True

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end."""
        return newest_sealed(self.checkpoints)

    def can_go_on(self) -> bool:
        """Whether an interrupted run, or sweep, left something to go on from."""
        return self.last_checkpoint() is not None or any(self.trials.glob("*.json"))

    @contextmanager
    def publish(self) -> Iterator[Path]:
        """Yield an empty folder to fill; when it is filled, it becomes the target and the work is cleared away.

        Raises:
            OutputError: If it cannot take the target's place.
        """
        staged, replaced = self.work / _STAGED, self.work / _REPLACED
        for folder in (staged, replaced):
            shutil.rmtree(folder, ignore_errors=True)
        staged.mkdir(parents=True)
        yield staged
        if self.target.exists() and (self.target.is_file() or any(self.target.iterdir())):
            if not self._may_replace:
                raise OutputError(
                    f"Something was put at '{self.target}' while the run was working.\n"
                    "Move it, then go on with --resume."
                )
            self._refuse_what_no_run_left()
        try:
            if self.target.exists():
                self.target.rename(replaced)
            staged.rename(self.target)
        except OSError as error:
            raise OutputError(
                f"'{self.target}' cannot be written: {error.strerror}.\nMend that, then go on with --resume."
            ) from None
        finally:
            self._put_back()
        shutil.rmtree(replaced, ignore_errors=True)
        for done in (self.checkpoints, self.trials, self.stores):
            shutil.rmtree(done, ignore_errors=True)


def _named(target: Path) -> Path:
    """The same folder by a path whose last part is its own name, so that there can be another beside it."""
    try:
        if not target.name or ".." in target.parts or target.is_symlink():
            target = target.resolve()
    except (OSError, RuntimeError):  # a name too long, a loop of links
        return target
    if not target.name:
        raise OutputError(f"'{target}' cannot be an output folder.\nChoose a folder in it for --out.")
    return target
