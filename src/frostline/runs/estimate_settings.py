"""What an estimate is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from frostline.engine.cost.machines import Machine, machine_named
from frostline.engine.settings import EngineSettings
from frostline.errors import SettingsError
from frostline.runs.train_settings import MOST, require_number

if TYPE_CHECKING:
    from frostline.engine.settings import StoreWhere

HERE = "cpu"
_MOST_MEAN, _MOST_EPOCHS = 1_000_000, 1_000_000
_MOST_ROWS = 100_000_000  # their lengths are drawn one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateSettings:
    """What an estimate is asked for; each as an argument of `frostline.estimate`.

    Raises:
        SettingsError: If a number is out of its range, or two settings contradict each other.
    """

    data: str | None = None
    rows: int | None = None
    tokens: float | None = None
    epochs: float | None = None
    batch_size: int = 16
    max_length: int | None = None
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: str = HERE
    flops: float | None = None
    bandwidth: float | None = None
    store: StoreWhere = "auto"
    text_columns: tuple[str, ...] = ("text",)
    label_columns: tuple[str, ...] = ("label",)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        self._check_rows()
        self._check_machine()
        if self.dtype not in {"fp32", "bf16"}:
            raise SettingsError(f"dtype is {self.dtype!r}; an estimate is for 'fp32' or 'bf16'.")
        if self.epochs is not None:
            require_number("epochs", self.epochs, most=_MOST_EPOCHS)
        require_number("batch_size", self.batch_size, least=1, most=MOST)
        if self.max_length is not None:
            require_number("max_length", self.max_length, least=1, most=MOST)
        EngineSettings(store=self.store)

    def _check_rows(self) -> None:
        if self.data is not None:
            if self.rows is not None or self.tokens is not None:
                raise SettingsError("--data says how many rows and tokens there are.\nLeave out --rows, --mean-tokens.")
            return
        if self.rows is None or self.tokens is None:
            raise SettingsError("How much it trains on is not said.\nGive --data FILE, or --rows N --mean-tokens T.")
        require_number("rows", self.rows, least=1, most=_MOST_ROWS)
        require_number("mean_tokens", self.tokens, least=1, most=_MOST_MEAN)

    def _check_machine(self) -> None:
        if (self.flops is None) != (self.bandwidth is None):
            raise SettingsError("--flops and --bandwidth go together.\nGive both: --flops 312e12 --bandwidth 2e12.")
        if self.flops is None or self.bandwidth is None:
            if self.device != HERE:
                machine_named(self.device)
            return
        require_number("flops", self.flops)
        require_number("bandwidth", self.bandwidth)
        if self.device != HERE:
            raise SettingsError(
                f"--device {self.device} and --flops {self.flops:g} both say how fast it is.\nGive one of them."
            )

    @property
    def machine(self) -> Machine | None:
        """The machine that is named; None for this one, and for one that has figures only."""
        return machine_named(self.device) if self.device != HERE else None

    @property
    def figures(self) -> tuple[float, float] | None:
        """Peak FLOPs per second and bytes per second of another machine; None for this one."""
        if self.flops is not None and self.bandwidth is not None:
            return self.flops, self.bandwidth
        machine = self.machine
        return None if machine is None else (machine.fp32 if self.dtype == "fp32" else machine.half, machine.bandwidth)

    @property
    def device_name(self) -> str:
        """The machine, in words."""
        if self.flops is not None:
            return "one with the figures given"
        return "this one's processor" if self.device == HERE else self.device
