"""Lightning's fit on the engine's fast paths, by a callback."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from frostline.errors import MissingExtraError
from frostline.freezing.freeze import freeze as freeze_named
from frostline.freezing.freeze import train_only as train_only_named
from frostline.training.fast import fast

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from frostline.training.fast import LoopEngine
else:
    _NAMES = ("lightning.pytorch", "pytorch_lightning")  # one library by two names
    _FOUND = next((name for name in _NAMES if find_spec(name.partition(".")[0]) is not None), None)
    if _FOUND is None:
        raise MissingExtraError(
            "LightningCallback needs Lightning, which is not installed.\n"
            "Install it with: pip install 'frostline[lightning]'"
        )
    Callback = import_module(f"{_FOUND}.callbacks").Callback


class LightningCallback(Callback):
    """Freezes a part of a LightningModule before its optimizer is made, and runs ``fit`` in a block of `fl.fast`.

    Args:
        freeze: What is frozen, as a selector; without one the flags stay as they are.
        train_only: What trains, as a selector; all else is frozen. Not together with `freeze`.
        **options: As for `fl.fast`: ``store``, ``store_dir``, ``store_budget``, ``store_dtype``, ``padding_free``,
            ``guard``, ``passes``.

    Attributes:
        engine: The engine of the last fit, whose `report` says what it did; None before.
    """

    def __init__(self, freeze: str | None = None, *, train_only: str | None = None, **options: Any) -> None:
        super().__init__()
        self._freeze = freeze
        self._train_only = train_only
        self._options = options
        self._block = ExitStack()
        self.engine: LoopEngine | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Freeze what is to be frozen, before the optimizer is made."""
        if stage == "fit" and self._freeze is not None:
            freeze_named(pl_module, self._freeze)
        if stage == "fit" and self._train_only is not None:
            train_only_named(pl_module, self._train_only)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to answer the model's calls."""
        self.engine = self._block.enter_context(fast(pl_module, **self._options))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the model as it was."""
        self._block.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the model as it was."""
        self._block.close()
