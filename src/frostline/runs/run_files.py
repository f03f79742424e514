"""What a run left, read back for a page: metrics, settings and proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.base.json import is_number, read_json
from frostline.checkpoints.source import locate
from frostline.errors import ModelError
from frostline.evidence.proof.run_result import METRICS_FILE, PROOF_FILE
from frostline.runs.train_settings import command_of, known_settings

if TYPE_CHECKING:
    from os import PathLike

_MOST_ROWS = 1 << 53


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run left.

    Attributes:
        folder: Its folder.
        metrics: What ``metrics.json`` holds.
        proof: What ``proof.json`` holds.
    """

    folder: Path
    metrics: dict[str, Any]
    proof: dict[str, Any]

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> RunFiles:
        """Read them.

        Raises:
            ModelError: If it is no folder that ``frostline train`` left, or a file cannot be read.
        """
        source = locate(folder)
        if source.folder is None:
            raise ModelError(f"There is no folder '{source.name}'.\nGive the folder that 'frostline train' left.")
        return cls(source.folder, *(_read(source.folder / name) for name in (METRICS_FILE, PROOF_FILE)))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, those that this version knows."""
        return known_settings(self.metrics.get("settings"))

    @property
    def base(self) -> str | None:
        """What the run started from."""
        model = self.settings.get("model")
        return model if isinstance(model, str) else None

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the tensors that had to stay, by the proof."""
        return frozenset(name for name, row in self._of_proof("tensors", dict).items() if row["frozen"] is True)

    @property
    def units(self) -> list[tuple[str, ...]]:
        """Per unit of the proof, in depth order: its name, verdict, and tensors that had to stay, moved, and in all."""
        names = ("name", "verdict", "frozen", "moved", "tensors")
        return [tuple(str(row[name]) for name in names) for row in self._of_proof("units", list)]

    @property
    def verdicts(self) -> dict[str, str]:
        """Per unit of the proof, its verdict."""
        return {name: verdict for name, verdict, *_ in self.units}

    def _of_proof(self, key: str, kind: type) -> Any:
        rows = self.proof.get(key)
        needed = {"frozen"} if kind is dict else {"name", "verdict", "frozen", "moved", "tensors"}
        values = rows.values() if isinstance(rows, dict) else rows or ()
        if not isinstance(rows, kind) or not all(isinstance(row, dict) and needed <= row.keys() for row in values):
            raise ModelError(f"The '{key}' of '{self.folder / PROOF_FILE}' are not as a run wrote them.")
        return rows

    def points(self, key: str) -> list[tuple[float, float]]:
        """Epoch and value of a figure each time that it was logged."""
        return [
            (float(entry["epoch"]), float(entry[key]))
            for entry in self._history()
            if is_number(entry.get(key)) and is_number(entry.get("epoch"))
        ]

    def confusion(self) -> list[list[int]] | None:
        """Per true label, how many evaluation rows the kept model gave which label; None where it was not counted."""
        found, size = self._of_kept("eval_confusion"), len(self.labels)
        if not isinstance(found, list) or len(found) != size:
            return None
        if not all(isinstance(row, list) and len(row) == size for row in found):
            return None
        return found if all(type(count) is int and 0 <= count < _MOST_ROWS for row in found for count in row) else None

    def most_wrong(self) -> list[tuple[int, str, str, float]]:
        """Evaluation rows that the kept model got most wrong: place, label, label that was given, and loss."""
        found, labels = self._of_kept("eval_most_wrong"), self.labels
        rows = [row for row in found if isinstance(row, list) and len(row) == 4] if isinstance(found, list) else []
        return [
            (place, labels[true], labels[given], float(loss))
            for place, true, given, loss in rows
            if type(place) is int and type(true) is int and type(given) is int and is_number(loss)
            if place >= 0 and 0 <= true < len(labels) and 0 <= given < len(labels)
        ]

    def phases(self) -> list[tuple[int, str, float, float]]:
        """Per phase of a schedule: number, what trained, and the epochs at which it began and ended."""
        rows, logged = self.proof.get("phases"), [entry for entry in self._history() if _is_positive(entry.get("step"))]
        if not isinstance(rows, list) or not logged or not _is_positive(logged[-1].get("epoch")):
            return []
        each = logged[-1]["epoch"] / logged[-1]["step"]
        return [
            (number, str(row.get("train")), float(row["from_step"] * each), float(row["to_step"] * each))
            for number, row in enumerate(rows, 1)
            if isinstance(row, dict) and is_number(row.get("from_step")) and is_number(row.get("to_step"))
        ]

    def _of_kept(self, key: str) -> Any:
        """What was noted when the kept model was evaluated; None where that was not."""
        best = self.metrics.get("best_epoch")
        noted = [entry.get(key) for entry in self._history() if entry.get("epoch") == best]
        return next((one for one in reversed(noted) if one is not None), None)

    @property
    def labels(self) -> list[str]:
        """The labels' names."""
        names = self.metrics.get("labels")
        return [str(name) for name in names] if isinstance(names, list) else []

    def command(self) -> str:
        """The command that does the run again, with what was given and is no default."""
        return command_of(self.settings)

    def _history(self) -> list[dict[str, Any]]:
        history = self.metrics.get("history")
        return [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
    except FileNotFoundError:
        raise ModelError(
            f"The folder '{file.parent}' holds no {file.name}.\nGive the folder that 'frostline train' left."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"'{file}' cannot be read ({error}).\nIt is not as the run wrote it.") from None
    if not isinstance(values, dict):
        raise ModelError(f"'{file}' holds no object.\nIt is not as the run wrote it.")
    return values
