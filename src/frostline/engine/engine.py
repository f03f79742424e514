"""The engine: answers the calls of a model's forward on the fastest path that is exact for it."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.logging import get_logger
from frostline.base.random_state import RngState
from frostline.compat.models import CAPTURING
from frostline.compat.modules import are_hooked
from frostline.compat.tensors import BatchNorm
from frostline.engine.batch_inputs import Call, read_call
from frostline.engine.behind_mask import guarded
from frostline.engine.call_kind import CallKind
from frostline.engine.cost.measurement import calibrate
from frostline.engine.fast_paths import FastPaths
from frostline.engine.interpose import interposed
from frostline.engine.replay.boundary import core_of
from frostline.engine.replay.boundary_tensors import spec_of
from frostline.engine.replay.prefix import Prefix, store_key
from frostline.engine.runner import Runner
from frostline.engine.selfcheck.admission import admit
from frostline.engine.selfcheck.comparison import failed
from frostline.engine.selfcheck.guard import Failure, Guard
from frostline.engine.selfcheck.model_state import KeptState, plain_values
from frostline.engine.selfcheck.together import fallbacks, settle
from frostline.errors import FrostlineError, OutputError
from frostline.store.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from frostline.engine.cost.costs import Measured
    from frostline.engine.selfcheck.result import PathCheck, SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.store.spec import StoreKey, StreamSpec
    from frostline.store.store import Store

    # Given what was admitted, what makes the key (it reads the whole prefix) and the streams: a store and the most
    # bytes that it may take, or nothing.
    StoreMaker = Callable[[SelfCheck, Callable[[], StoreKey], list[StreamSpec]], tuple[Store, int] | None]

_MOST_KINDS = 12  # of calls are tried
_MOST_REFUSALS = 3  # so many calls may turn out to need the plain path, before all of their kind take it
_LONGEST_NAME = 200  # its end tells more than its beginning


class Engine:
    """Runs one model's forwards on its fast paths.

    While it is active, a call of the model's forward is read; on the first one of a kind the fast paths are tried on a
    few of its rows; then such calls are answered on those that are exact, from the store as far as it holds the rows. A
    call that no fast path can answer is answered by the model's own forward, and the reason is said once.

    Args:
        model: The model, wrapped or not.
        settings: What the engine may do.
        make_store: Makes the store, or none, when a self-check has admitted replay.

    Attributes:
        guard: Repeats calls plainly now and then.
        answered: How many calls were answered on a fast path.
        asked: How many rows the store was asked for.
        computed: How many of them it did not hold.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, make_store: StoreMaker) -> None:
        self._core = core_of(model)
        self._settings = settings
        self._make_store = make_store
        self._signature = inspect.signature(type(self._core).forward.__get__(self._core))
        self._parameters = list(self._core.parameters())
        self._checkpointing = [module for module in self._core.modules() if hasattr(module, "gradient_checkpointing")]
        self._norms = [module for module in self._core.modules() if isinstance(module, BatchNorm)]
        self._sparse: list[Any] = [module for module in self._core.modules() if hasattr(module, "attention_type")]
        self._modules = list(self._core.modules())
        self._flags: tuple[bool, ...] = ()
        self._states: dict[Any, list[CallKind]] = {}
        self._stores: dict[str, tuple[Store, int]] = {}  # by their keys
        self._state: CallKind | None = None  # of the last call that trains; before the first, of the last
        self._said: set[str] = set()
        self._runner = Runner(self._core, self._core.forward)
        self.guard = Guard(is_on=settings.guard)
        self._reason: str | None = None
        # Calls since the engine became active whose loss may read too much, and what takes each back.
        self._revocable: list[tuple[CallKind, Callable[[], None]]] = []
        self.answered = self.asked = self.computed = 0

    @property
    def model_name(self) -> str:
        """Where the model was loaded from; its class where that is not known."""
        return str(getattr(self._core, "name_or_path", None) or type(self._core).__name__)[-_LONGEST_NAME:]

    @property
    def check(self) -> SelfCheck | None:
        """Which paths are exact for calls that train; None before the first call."""
        if self._state is None:
            return None
        check, paths = self._state.check, self._state.paths
        return replace(check, paths=paths, boundary=check.boundary if paths.replay is not None else None)

    @property
    def store(self) -> Store | None:
        """What is kept of the frozen part; None where nothing is."""
        return self._state.store if self._state is not None else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Answer the model's calls for a while."""
        if vars(self._core).get("forward") == self._answer:  # it is active already
            yield
            return
        self._runner.forward = self._core.forward
        self._revocable.clear()
        with interposed({self._core: self._answer}):
            yield

    @property
    def reason(self) -> str | None:
        """Why a call was last answered on the plain path, in words; None if none was."""
        return self._reason

    def can_read(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a fast path may answer a call, as far as its inputs tell."""
        return not isinstance(self._read((), inputs), str)

    def ready(self, inputs: Mapping[str, Any]) -> SelfCheck | None:
        """Try the fast paths on a batch; None where no fast path can answer such a call.

        Args:
            inputs: What the model's forward is called with.
        """
        call = self._read((), inputs)
        if isinstance(call, str):
            return None
        state = self._state_for(call)
        return state.check if state is not None else None

    def measure(self, filling: Mapping[str, Any], step: Mapping[str, Any], folder: Path | None) -> Measured | None:
        """Measure what the prefix costs computed and stored.

        Args:
            filling: Model inputs of rows of about one length, as the store is filled with; `step` itself where steps
                fill it.
            step: Model inputs as a training step has them.
            folder: The folder of stores; None where nothing may be kept on disk.

        Returns:
            What was measured; None before replay is admitted, and where nothing can be stored of such batches.
        """
        one = self._alike(filling)
        other = one if step is filling else self._alike(step)
        if self._state is None or one is None or other is None:
            return None
        dtype = self._settings.torch_dtype
        try:
            with self._keeping_state(self._state):
                return calibrate(self._runner, self._state.paths, one, other, dtype=dtype, folder=folder)
        except FrostlineError:
            raise
        except Exception as reason:  # noqa: BLE001 - the model's own code, on rows of other lengths
            self._say(f"what is frozen cannot be run by itself: {type(reason).__name__}: {reason}")
            return None

    def missing(self, inputs: Mapping[str, Any], store: Store | None = None) -> int:
        """How many rows of a batch a store does not hold; the engine's own unless told."""
        call = self._alike(inputs)
        store = store or self.store
        if call is None or store is None or self._state is None:
            return 0
        return len(store.missing(self._digests(call, self._state.paths)))

    def fill(self, inputs: Mapping[str, Any]) -> int:
        """Put the rows of a batch into the store as far as it does not hold them.

        Returns:
            How many were computed.

        Raises:
            NotReplayable: If such rows cannot be stored.
        """
        call, state = self._alike(inputs), self._state
        if call is None or state is None or state.store is None:
            return 0
        with self._keeping_state(state):
            return self._fill(call, self._digests(call, state.paths), state.store, state)

    def _alike(self, inputs: Mapping[str, Any]) -> Call | None:
        """A batch as the last call that trains had its inputs; None where it lacks one."""
        state = self._state
        if state is None or state.paths.replay is None or state.tensors - inputs.keys() - state.paths.unread:
            return None
        tensors = {name: value for name, value in inputs.items() if name in state.tensors}
        call = self._read((), state.constants | tensors)
        if isinstance(call, str) or not state.takes(call):
            return None
        return call.with_aligned(state.paths.aligned) if state.paths.aligned is not None else call

    def stop_storing(self) -> None:
        """Let go of the stores, and keep nothing any more."""
        for states in self._states.values():
            for state in states:
                state.store = None
        for store, _ in self._stores.values():
            store.close()
        self._stores.clear()

    def forget(self) -> None:
        """Forget what was found out, and let go of the stores; what is on disk stays there."""
        self._states.clear()
        self._state = None
        for store, _ in self._stores.values():
            store.close()
        self._stores.clear()

    def forget_if_changed(self) -> None:
        """Forget all if a tensor beneath the boundary is another one than the store was filled from.

        Writing through ``.data`` is not counted by torch, so that all of them are read.
        """
        stored = [state for states in self._states.values() for state in states if state.store is not None]
        prefixes = {state.check.boundary: state for state in stored}.values()
        if any(state.prefix is not None and state.prefix.digest() != state.digest for state in prefixes):
            self.forget()

    close = forget

    def _answer(self, *arguments: Any, **options: Any) -> Any:
        call = self._read(arguments, options)
        if isinstance(call, str):
            self._say(call)
            return self._runner.forward(*arguments, **options)
        state = self._state_for(call)
        if state is None or not state.paths.any:
            return self._runner.forward(*arguments, **options)
        undo = None
        try:
            state = self._guarded(call, state)
            if not state.paths.any:
                return self._runner.forward(*arguments, **options)
            values = self._values(call, state)
            verifies = state.paths.one_position is not None and (
                not state.paths.is_fixed or call.rows.length not in state.widths
            )
            guards = bool(state.check.per_token) and torch.is_grad_enabled() and not call.rows.full
            undo = self._undo(state) if verifies or guards or state.check.draws else None
            output = self._runner.run(call, state.paths, values, verifies=verifies)
            if guards and undo is not None:
                self._revocable.append((state, undo))
        except OutputError:  # a full disk
            raise
        except Exception as error:  # noqa: BLE001 - the model's own code, given what it may not expect
            self._refuse(state, failed("", error).how)
        else:
            self.answered += 1
            state.widths.add(call.rows.length)
            return guarded(output, call.rows.mask) if guards else output
        if undo is not None:
            undo()
        return self._runner.forward(*arguments, **options)

    def take_back(self, reason: str) -> None:
        """Take back calls of which the loss reads what was not computed, and answer their kinds plainly.

        Args:
            reason: What `PaddingRead` says.
        """
        self._say(reason)
        for state, undo in reversed(self._revocable):
            state.paths = FastPaths()
            undo()
        self._revocable.clear()

    def _undo(self, state: CallKind) -> Callable[[], None]:
        """What takes a forward back that turns out to be wrong."""
        rng = RngState()
        kept = KeptState(self._core) if state.check.changes else None

        def undo() -> None:
            rng.restore()
            if kept is not None:
                kept.restore()

        return undo

    @contextmanager
    def _keeping_state(self, state: CallKind) -> Iterator[None]:
        """Leave what modules hold as it is, where a forward would change it."""
        kept = KeptState(self._core) if state.check.changes else None
        try:
            yield
        finally:
            if kept is not None:
                kept.restore()

    def _refuse(self, state: CallKind, reason: str) -> None:
        """Answer a call plainly after all; after some of them, all calls of its kind."""
        self._say(reason)
        state.refused += 1
        if state.refused >= _MOST_REFUSALS and state.refused > self.answered // 10:
            state.paths = FastPaths()

    def _guarded(self, call: Call, state: CallKind) -> CallKind:
        """Repeat a call plainly, if it is due; give up what turns out to be wrong.

        Returns:
            What holds for the call.
        """
        if not self.guard.is_due(state.seen, call.rows.length):
            return state
        began = time.perf_counter()
        rng = RngState()
        try:
            held, check = self._settled(call, state, from_store=True)
            self.guard.note(check, time.perf_counter() - began)
            if check.admitted:
                return state
            if state.store is not None:  # is it the path, or what is stored?
                held, anew = self._settled(call, state, from_store=False)
                if anew.admitted:
                    self._fail(state, check, "what was stored is not what the frozen part gives now: it is stored anew")
                    self.forget()
                    return self._state_for(call) or state
        finally:
            rng.restore()
        lost = [name for name, own in _named(state.paths).items() if own and not _named(held)[name]]
        self._fail(state, check, f"given up: {', '.join(lost) or 'nothing'}")
        if (held.replay, held.stored_positions) != (state.paths.replay, state.paths.stored_positions):
            held, state.store = replace(held, replay=None), None
        state.paths = held
        return state

    def _settled(self, call: Call, state: CallKind, *, from_store: bool) -> tuple[FastPaths, PathCheck]:
        return settle(
            self._core,
            self._runner.forward,
            call,
            fallbacks(state.paths),
            per_token=state.check.per_token,
            dtype=state.check.dtype,
            stored=partial(self._values, state=state) if from_store else None,
        )

    def _fail(self, state: CallKind, check: PathCheck, consequence: str) -> None:
        failure = Failure(state.seen.calls, check.outputs, check.gradients, consequence)
        self.guard.failures.append(failure)
        differences = (
            f"outputs differ by {check.outputs:.1e}, gradients by {check.gradients or 0:.1e}"
            if check.outputs is not None
            else check.how
        )
        get_logger().warning("Guard: call %d repeated plainly: %s; %s.", failure.call, differences, consequence)

    def _read(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Call | str:
        reason = self._needs_plain()
        if reason is not None:
            return reason
        call = read_call(self._signature, arguments, options, getattr(self._core, "config", None))
        if isinstance(call, str) or "use_cache" not in self._signature.parameters:
            return call
        # A cache of keys and values serves generation only; it would be filled for nothing.
        return replace(call, inputs={"use_cache": False} | call.inputs)

    def _needs_plain(self) -> str | None:
        """Why only the plain forward can answer whatever the model is called with, as it stands."""
        checkpointing = torch.is_grad_enabled() and self._core.training
        reasons = {
            "the model is being compiled": torch.compiler.is_compiling(),
            "gradient checkpointing runs layers again in the backward pass": checkpointing
            and any(module.gradient_checkpointing for module in self._checkpointing),
            "batch normalisation counts the padding in": any(norm.training for norm in self._norms),
            "there are hooks on the model, which would see other values": are_hooked(self._modules, CAPTURING),
            "its attention works in blocks of the padded text": any(
                module.attention_type == "block_sparse" for module in self._sparse
            ),
        }
        return next((reason for reason, applies in reasons.items() if applies), None)

    def _digests(self, call: Call, paths: FastPaths) -> list[bytes]:
        call = call.with_aligned(paths.aligned) if paths.aligned is not None else call
        salt = "in train mode" if paths.by_mode and self._core.training else ""
        return call.digests(whole=paths.whole, unread=paths.unread, salt=salt)

    def _values(self, call: Call, state: CallKind) -> dict[str, Packed] | None:
        """What is stored of the batch's rows; None to run everything."""
        if state.store is None or self._is_random(state):
            return None
        digests = self._digests(call, state.paths)
        missing = state.store.missing(digests)
        self.asked += len(digests)
        self.computed += len(missing)
        if missing and state.store.bytes_used < state.budget:
            with self._keeping_state(state):
                self._fill(call, digests, state.store, state)
            missing = state.store.missing(digests)
        if missing:  # there was no room for them
            return None
        device = call.rows.mask.device
        values = state.store.get(digests)
        return {name: Packed(own.values.to(device, non_blocking=True), own.lengths) for name, own in values.items()}

    def _fill(self, call: Call, digests: list[bytes], store: Store, state: CallKind) -> int:
        """Compute what the store does not hold of a batch, and keep it as far as there is room.

        Returns:
            How many rows were computed.
        """
        missing = store.missing(digests)
        if not missing or store.bytes_used >= state.budget:
            return 0
        values = self._runner.tap(call.select(missing), state.paths)
        store.put([digests[row] for row in missing], values)
        return len(missing)

    def _is_random(self, state: CallKind) -> bool:
        """Whether frozen layers draw random numbers, so that nothing of them can be kept."""
        random = any(module.training for module in state.skipped)
        if random:
            self._say("frozen layers are in train mode, dropout included, so that nothing of them is kept")
        return random

    def _state_for(self, call: Call) -> CallKind | None:
        """What holds for a call; None where only the plain forward can answer it."""
        flags = tuple(parameter.requires_grad for parameter in self._parameters)
        if flags != self._flags:
            self.forget()
            self._flags = flags
        device = call.rows.mask.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        modes = tuple(module.training for module in self._modules)
        grads = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        kind = (call.kind(), precision, modes, grads, None if call.rows.full else call.layout)
        state = self._known(kind, call)
        if state is not None and state.prefix is not None and state.versions != state.prefix.versions():
            self.forget()
            state = None
        if state is None:
            if sum(map(len, self._states.values())) >= _MOST_KINDS:
                self._say(f"the model is called in more than {_MOST_KINDS} ways, of which no more are tried")
                return None
            state = self._tried(call, precision)
            self._states.setdefault(kind, []).append(state)
        if (
            (self._core.training and torch.is_grad_enabled())
            or self._state is None
            or not any(self._state in states for states in self._states.values())
        ):
            self._state = state
        return state

    def _known(self, kind: tuple[Any, ...], call: Call) -> CallKind | None:
        """What was found out about calls of a kind; without padding all layouts are one."""
        if call.rows.full:
            alike = [state for other, ones in self._states.items() if other[:-1] == kind[:-1] for state in ones]
        else:
            alike = self._states.get(kind, [])
        return next((state for state in alike if state.takes(call)), None)

    def _tried(self, call: Call, precision: torch.dtype | None) -> CallKind:
        """Try the fast paths for a kind of calls."""
        check = admit(
            self._core,
            self._runner.forward,
            call,
            padding_free=self._settings.padding_free,
            store_dtype=self._settings.torch_dtype,
        )
        tensors = {name for name, value in call.inputs.items() if isinstance(value, torch.Tensor)}
        constants = {name: value for name, value in call.inputs.items() if name not in tensors}
        state = CallKind(frozenset(tensors), constants, check, check.paths, plain_values(self._core, check.changes))
        replay = check.paths.replay
        if replay is None:
            return state
        state.prefix = Prefix(self._core, replay.route.boundary)
        state.versions = state.prefix.versions()
        outer = (self._core.get_submodule(path) for path in (*replay.route.tables, *replay.route.skipped))
        state.skipped = tuple(inner for module in outer for inner in module.modules())
        digest = cache(state.prefix.digest)  # it reads the whole prefix
        previous, self._state = self._state, state
        streams = [spec_of(stream, check.paths) for stream in replay.streams]
        key = cache(
            lambda: store_key(self._core, check.paths, digest(), dtype=self._settings.torch_dtype, autocast=precision)
        )
        made = self._stores.get(key().digest()) if self._stores else None
        made = made or self._make_store(check, key, streams)
        self._state = previous
        if made is not None:
            state.store, state.budget = self._stores[key().digest()] = made
            state.digest = digest()
        return state

    def _say(self, reason: str) -> None:
        self._reason = reason
        if reason not in self._said:
            self._said.add(reason)
            get_logger().info("Plain path: %s.", reason)


def _named(paths: FastPaths) -> dict[str, bool]:
    """Which paths are among them, by the words for them."""
    return {
        "padding-free layers": paths.packing is not None or paths.trim,
        "one position": paths.one_position is not None,
        "replay": paths.replay is not None,
        "matrix products by oneDNN": paths.products,
        "embedding gradients": paths.tables,
    }
