"""What a test runs in a process of its own: a training by phases that kills itself."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from frostline.plan.schedule import Schedule
from tests.training.test_phased_resume import FIVE, trainer


class SigKill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer(Path(sys.argv[1]), Schedule(FIVE), SigKill(int(sys.argv[2]))).train()
