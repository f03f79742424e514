"""The state of the random number generators that a training step draws from."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch


class RngState:
    """The generators of torch (CPU, CUDA, MPS), of Python and of NumPy as they were."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        self._python = random.getstate()
        numpy: Any = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy is not None else None

    def restore(self) -> None:
        """Put all of them back."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)


def seed_all(seed: int) -> None:
    """Seed the generators of torch, Python and NumPy, but for those of devices that nobody uses yet.

    ``torch.manual_seed`` would note for each of them from where it was called, each time.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


def rewinding(value: Any) -> Callable[[], Any] | None:
    """What puts a generator of random numbers back to where it stands now; None for anything else.

    Args:
        value: A generator of torch, of Python or of NumPy, or any other object.
    """
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    if numpy is not None and isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return partial(setattr, bits, "state", bits.state)
    return None


def generator_state(value: Any) -> str | None:
    """Write down where a generator of random numbers stands; None for anything else.

    Args:
        value: A generator of torch, of Python or of NumPy, or any other object.
    """
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes().hex()
    if isinstance(value, random.Random):
        return repr(value.getstate())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return repr(value.bit_generator.state)
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return repr(value.get_state(legacy=False)["state"]["key"].tobytes()) + repr(value.get_state()[2:])
    return None
