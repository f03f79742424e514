"""The checkpoints of a run: sealed once they are whole, and looked through before one is gone on from."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from frostline.base.files import use_mask
from frostline.base.json import read_json
from frostline.base.logging import get_logger
from frostline.base.sealing import SEAL_FILE, Seal
from frostline.errors import OutputError
from frostline.training.callback import FINGERPRINT_FILE, checkpoint_folder

_STATE = "trainer_state.json"
ASIDE = "damaged"  # what the name of a checkpoint begins with that was moved aside
# Without one of these the Trainer goes on all the same, and ends with other weights.
_NEEDED = (_STATE, "optimizer.pt", "scheduler.pt", "rng_state.pth", FINGERPRINT_FILE)


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint once all of it is written; to be the last callback but those that end the run.

    Attributes:
        stepped: Whether a step has begun, so that the checkpoint that the run goes on from was taken in.
    """

    def __init__(self) -> None:
        self.stepped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look for the best checkpoint beside the others, wherever the run began to write them."""
        if state.best_model_checkpoint is not None:
            state.best_model_checkpoint = str(Path(str(args.output_dir)) / Path(state.best_model_checkpoint).name)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note that the run goes on."""
        self.stepped = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal what was written."""
        folder = checkpoint_folder(args, state)
        use_mask(folder)
        Seal.of(folder).write(folder)


def newest_sealed(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that was written to its end; None where there is none."""
    return next((place for place in _newest_first(folder) if (place / SEAL_FILE).is_file()), None)


def newest_sound(folder: Path) -> Path:
    """The newest checkpoint in a folder all of whose files are as they were written.

    Newer ones are named and moved aside: the run will write checkpoints of their names, and what lies in them (a link,
    a pipe) may lead elsewhere.

    Raises:
        OutputError: If none is sound.
    """
    faults: dict[Path, str] = {}
    for place in _newest_first(folder):
        fault = _fault(place) or _fault_of_best(place)
        if fault is None:
            for damaged, said in faults.items():
                get_logger().warning(f"Not sound: {damaged.name}: {said}. Going on from {place.name}.")
                _move_aside(damaged)
            return place
        faults[place] = fault
    said = "; ".join(f"{place.name}: {fault}" for place, fault in faults.items())
    raise OutputError(f"No checkpoint in '{folder}' is sound ({said}).\nStart anew by --overwrite.")


def _move_aside(checkpoint: Path) -> None:
    names = (checkpoint.with_name(f"{ASIDE}-{number}-{checkpoint.name}") for number in count(1))
    checkpoint.rename(next(name for name in names if not os.path.lexists(name)))


def _newest_first(folder: Path) -> list[Path]:
    numbered = ((place.name.removeprefix("checkpoint-"), place) for place in folder.glob("checkpoint-*"))
    return [
        place
        for _, place in sorted(((int(number), place) for number, place in numbered if number.isdecimal()), reverse=True)
        if place.is_dir()
    ]


def _fault(checkpoint: Path) -> str | None:
    """What is damaged in a checkpoint; None where it is sound."""
    try:
        seal = Seal.read(checkpoint)
    except FileNotFoundError:
        return f"{SEAL_FILE} is missing, so it was not written to its end"
    except (OSError, ValueError) as error:
        return f"{SEAL_FILE} cannot be read ({error})"
    for name in (*(needed for needed in _NEEDED if needed not in seal.files), *seal.missing(checkpoint)):
        return f"{name} is missing"
    for name in seal.altered(checkpoint):
        return f"{name} is not as it was written"
    return None


def _fault_of_best(checkpoint: Path) -> str | None:
    """What is damaged in the checkpoint that a sound one names as the best so far."""
    try:
        best = read_json(checkpoint / _STATE)["best_model_checkpoint"]
    except (OSError, ValueError, LookupError, TypeError):
        return f"{_STATE} is not as the Trainer writes it"
    if not isinstance(best, str) or Path(best).name == checkpoint.name:
        return None
    fault = _fault(checkpoint.with_name(Path(best).name))
    return None if fault is None else f"the best one before it, {Path(best).name}: {fault}"
