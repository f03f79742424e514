"""The results of a sweep's trials, kept as they come, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from frostline.base.files import atomic_file
from frostline.base.json import read_json, write_json
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.training.shared_pass import SharedPass

_SHARED_FILE = "shared-pass.json"


class Record:
    """A folder with a file for each trial that is done.

    Args:
        folder: The folder; it is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, trial: Trial) -> TrialResult | None:
        """The result of a trial; None where it is not done, or its file cannot be read."""
        try:
            found = TrialResult.from_dict(read_json(self._file(trial)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.trial == trial else None

    def put(self, result: TrialResult) -> None:
        """Keep the result of a trial.

        Raises:
            OutputError: If it cannot be written.
        """
        with atomic_file(self._file(result.trial)) as file:
            write_json(file, result.to_dict())

    def _file(self, trial: Trial) -> Path:
        return self._folder / f"{trial.name}.json"

    def shared_pass(self) -> SharedPass | None:
        """What the shared pass left; None where it was not done."""
        try:
            return SharedPass(**read_json(self._folder / _SHARED_FILE))
        except (OSError, ValueError, TypeError):
            return None

    def put_shared_pass(self, done: SharedPass) -> None:
        """Keep what the shared pass left.

        Raises:
            OutputError: If it cannot be written.
        """
        with atomic_file(self._folder / _SHARED_FILE) as file:
            write_json(file, asdict(done))
