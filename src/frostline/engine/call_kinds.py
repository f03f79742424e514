"""The kinds of calls of a model's forward: which paths are exact for each, and what is stored for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from frostline.engine.batch_inputs import NeedsPlain
from frostline.engine.fast_paths import FastPaths
from frostline.engine.known_checks import known_checks
from frostline.engine.replay.boundary_tensors import spec_of
from frostline.engine.replay.prefix import Prefix, store_key
from frostline.engine.selfcheck.admission import admit
from frostline.engine.selfcheck.guard import Seen
from frostline.engine.selfcheck.model_state import plain_values

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.replay.prefix import Version
    from frostline.engine.runner import Runner
    from frostline.engine.selfcheck.result import SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.store.place import StorePlace
    from frostline.store.spec import StoreKey, StreamSpec
    from frostline.store.store import Store

_MOST_KINDS = 12  # are tried
_MOST_LOOKS = 8  # after so many calls whose loss depends on no output with one value per token, it reads no padding


@dataclass(eq=False)
class CallKind:
    """What was found out about calls of one kind, and holds as long as nobody changes the model.

    Attributes:
        tensors: The names of a call's tensors.
        constants: All other inputs.
        check: Which paths are exact.
        paths: Those that are taken: fewer than were admitted, once the guard has found one wrong.
        values: Plain values among modules' attributes, by what holds them and their names.
        sizes: The shape of one row of each input, where the paths hold for such only; None where they hold for any.
        autocast: What autocast computes in; None outside of it.
        prefix: The tensors beneath the boundary; None where nothing can be replayed.
        versions: What each of them was: where it lay, and how often it was written.
        skipped: The modules that are not run where it is replayed.
        key: Of what is stored; None as long as nobody asked for it.
        store: What is kept; None to run everything.
        budget: The most bytes that the store may take.
        widths: Positions of rows for which it was looked up that one position only is read.
        seen: What the guard knows.
        refused: How many calls could not be answered on the paths after all.
        reads_padding: Whether the loss reads what stands behind the mask; None where no backward pass has told.
        looked: In how many calls it was looked for.
    """

    tensors: frozenset[str]
    constants: dict[str, Any]
    check: SelfCheck
    paths: FastPaths
    values: list[tuple[dict[str, Any], str, Any]]
    sizes: dict[str, tuple[int, ...]] | None = None
    autocast: torch.dtype | None = None
    prefix: Prefix | None = None
    versions: tuple[Version, ...] = ()
    skipped: tuple[nn.Module, ...] = ()
    key: StoreKey | None = None
    store: Store | None = None
    budget: int = 0
    widths: set[int] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)
    refused: int = 0
    reads_padding: bool | None = None
    looked: int = 0

    def looks_for_reads(self) -> bool:
        """Whether the next call is one of the first, of which it is looked whether the loss reads padding."""
        self.looked += 1
        return self.reads_padding is None and self.looked <= _MOST_LOOKS

    def note_read(self, reads: bool) -> None:
        """Note whether the loss reads padding; if it does, all calls of the kind are answered plainly."""
        self.reads_padding = self.reads_padding or reads
        if reads:
            self.paths = FastPaths()

    def takes(self, call: Call) -> bool:
        """Whether a call of this kind is one of those that were tried: its inputs lie and are padded alike."""
        aligned = self.paths.aligned or frozenset()
        if not aligned <= call.aligned or any(held.get(name) != value for held, name, value in self.values):
            return False
        if self.sizes is not None and call.sizes() != self.sizes:
            return False
        return not call.paddings or all(call.paddings[name] == self.check.paddings.get(name) for name in aligned)

    def streams(self) -> list[StreamSpec]:
        """The tensors that are stored per row."""
        replay = self.check.paths.replay
        return [spec_of(stream, self.check.paths) for stream in replay.streams] if replay is not None else []


class CallKinds:
    """Tells the kind of a call, and tries the fast paths for a kind that is new.

    Args:
        model: The model inside its wrappers.
        settings: What the engine may do.
        runner: Runs the model.

    Attributes:
        current: The kind of the last call that trains; before the first, of the last.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, runner: Runner) -> None:
        self._model = model
        self._settings = settings
        self._runner = runner
        self._parameters = list(model.parameters())
        self._modules = list(model.modules())
        self._flags: tuple[bool, ...] = ()
        self._known: dict[Any, list[CallKind]] = {}
        self._shared = known_checks()
        self._place: StorePlace | None = None
        self._stores: dict[tuple[str, Path | None], Store] = {}  # by the digests of their keys, and where they lie
        self.current: CallKind | None = None

    def of(self, call: Call) -> CallKind:
        """Tell the kind of a call.

        Raises:
            NeedsPlain: If the model is called in so many ways that no more are tried.
        """
        flags = tuple(parameter.requires_grad for parameter in self._parameters)
        if flags != self._flags:
            self._forget_kinds()
            self._flags = flags
        device = call.rows.mask.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        modes = tuple(module.training for module in self._modules)
        grads = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        name = (call.kind(), autocast, modes, grads, None if call.rows.full else call.layout)
        kind = self._find(name, call)
        if kind is not None and kind.prefix is not None and kind.versions != kind.prefix.versions():
            self.forget()
            kind = None
        if kind is None:
            if sum(map(len, self._known.values())) >= _MOST_KINDS:
                raise NeedsPlain(f"the model is called in more than {_MOST_KINDS} ways, of which no more are tried")
            kind = self._shared_with(name, call, autocast) or self._tried(name, call, autocast)
            self._known.setdefault(name, []).append(kind)
        self._store(kind)
        if self.current is None or (self._model.training and torch.is_grad_enabled()):
            self.current = kind
        return kind

    def _all(self) -> list[CallKind]:
        return [kind for kinds in self._known.values() for kind in kinds]

    def _find(self, name: tuple[Any, ...], call: Call) -> CallKind | None:
        """What was found out about calls of a kind; without padding all layouts are one."""
        if call.rows.full:
            alike = [kind for other, kinds in self._known.items() if other[:-1] == name[:-1] for kind in kinds]
        else:
            alike = self._known.get(name, [])
        return next((kind for kind in alike if kind.takes(call)), None)

    def _shared_with(self, name: tuple[Any, ...], call: Call, autocast: torch.dtype | None) -> CallKind | None:
        """What was found out about such calls of a copy of the model."""
        checks = self._shared.get((self._flags, name), []) if self._shared is not None else []
        kinds = (self._kind_of(check, call, autocast) for check in checks)
        return next((kind for kind in kinds if kind.takes(call)), None)

    def _tried(self, name: tuple[Any, ...], call: Call, autocast: torch.dtype | None) -> CallKind:
        """Try the fast paths for a kind of calls."""
        check = admit(
            self._model,
            self._runner.forward,
            call,
            padding_free=self._settings.padding_free,
            store_dtype=self._settings.torch_dtype,
        )
        if self._shared is not None:
            self._shared.setdefault((self._flags, name), []).append(check)
        return self._kind_of(check, call, autocast)

    def _kind_of(self, check: SelfCheck, call: Call, autocast: torch.dtype | None) -> CallKind:
        tensors = frozenset(name for name, value in call.inputs.items() if isinstance(value, torch.Tensor))
        constants = {name: value for name, value in call.inputs.items() if name not in tensors}
        values = plain_values(self._model, check.changes)
        if check.dtype != self._parameters[0].dtype:  # there may be an autocast inside of the forward, as accelerate's
            autocast = autocast or check.dtype
        replay = check.paths.replay
        is_sized = check.paths.positions is not None or (replay is not None and replay.has_sizes)
        sizes = call.sizes() if is_sized else None
        kind = CallKind(tensors, constants, check, check.paths, values, sizes, autocast)
        if replay is not None:
            kind.prefix = Prefix(self._model, replay.route.boundary)
            kind.versions = kind.prefix.versions()
            outer = (self._model.get_submodule(path) for path in (*replay.route.tables, *replay.route.skipped))
            kind.skipped = tuple(inner for module in outer for inner in module.modules())
        return kind

    def key_of(self, kind: CallKind) -> StoreKey | None:
        """The key of what is stored for a kind, for which the whole prefix is read; None where nothing can be."""
        if kind.paths.replay is None or kind.prefix is None:
            return None
        if kind.key is None:
            dtype = self._settings.torch_dtype
            digest = kind.prefix.digest()
            kind.key = store_key(self._model, kind.check.paths, digest, dtype=dtype, autocast=kind.autocast)
        return kind.key

    def use(self, place: StorePlace | None) -> None:
        """Keep from now on in a place what can be replayed; None to keep nothing that is not kept yet."""
        self._place = place
        if self.current is not None:
            self._store(self.current)
        used = [kind.store for kind in self._all()]
        for name, store in list(self._stores.items()):
            if store not in used:  # it was looked at only
                self._stores.pop(name).close()

    def _store(self, kind: CallKind) -> None:
        """Have a kind use the store of its key, where there is a place for one."""
        if kind.store is None and self._place is not None:
            kind.store, kind.budget = self.open(kind, self._place), self._place.budget

    def open(self, kind: CallKind, place: StorePlace) -> Store | None:
        """Open the store of a kind in a place; None where nothing can be stored for it.

        Raises:
            OutputError: If none can be made there.
        """
        key = self.key_of(kind)
        if key is None:
            return None
        name = (key.digest(), place.folder)
        if name not in self._stores:
            self._stores[name] = place.open(key, kind.streams())
        return self._stores[name]

    def stop_storing(self) -> None:
        """Let go of the stores, and keep nothing any more."""
        self._place = None
        for kind in self._all():
            kind.store = None
        self._close()

    def forget(self) -> None:
        """Forget what was found out, and let go of the stores; what is on disk stays there."""
        self._forget_kinds()
        self._shared = None  # the model may no longer be what others are copies of

    def _forget_kinds(self) -> None:
        self._known.clear()
        self.current = None
        self._close()

    def _close(self) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def forget_if_changed(self) -> None:
        """Forget all if a tensor beneath the boundary is another one than the store is filled from.

        Writing through ``.data`` is not counted by torch, so that all of them are read.
        """
        keyed = {kind.check.boundary: kind for kind in self._all() if kind.key is not None}.values()
        if any(kind.prefix and kind.key and kind.prefix.digest() != kind.key.prefix for kind in keyed):
            self.forget()
