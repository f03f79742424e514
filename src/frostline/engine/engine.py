"""The engine: answers the calls of a model's forward on the fastest path that is exact for it."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.logging import get_logger
from frostline.base.random_state import RngState
from frostline.compat.models import is_harmless
from frostline.compat.modules import are_hooked
from frostline.compat.tensors import BatchNorm
from frostline.engine.batch_inputs import Call, NeedsPlain, by_rows, read_call
from frostline.engine.behind_mask import guarded, watched
from frostline.engine.call_kinds import CallKind, CallKinds
from frostline.engine.cost.measurement import calibrate
from frostline.engine.fast_paths import FastPaths
from frostline.engine.interpose import interposed
from frostline.engine.replay.boundary import core_of
from frostline.engine.runner import Runner
from frostline.engine.selfcheck.comparison import failed
from frostline.engine.selfcheck.guard import Failure, Guard
from frostline.engine.selfcheck.model_state import KeptState, keeping_state
from frostline.engine.selfcheck.together import fallbacks, settle
from frostline.engine.wanted import Wanted, fill_stores
from frostline.errors import FrostlineError, OutputError
from frostline.store.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from frostline.engine.cost.costs import Measured
    from frostline.engine.interpose import Forward
    from frostline.engine.selfcheck.result import PathCheck, SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.store.place import StorePlace
    from frostline.store.spec import StoreKey
    from frostline.store.store import Store

_MOST_REFUSALS = 3  # so many calls may turn out to need the plain path, before all of their kind take it
_MEND = ", as in none of the first steps.\nCall the model outside of fl.fast where a loss does so"
_LONGEST_NAME = 200  # its end tells more than its beginning


class Engine:
    """Runs one model's forwards on its fast paths.

    While it is active, a call of the model's forward is read; on the first one of a kind the fast paths are tried on a
    few of its rows; then such calls are answered on those that are exact, from the store as far as it holds the rows,
    once `use` has said where activations are kept. A call that no fast path can answer is answered by the model's own
    forward, and the reason is said once.

    Args:
        model: The model, wrapped or not.
        settings: What the engine may do.
        retakes: Whether a step of which the loss reads padding is taken again, after `take_back`. If not, such a loss
            is looked for in steps that are answered plainly, before any is answered otherwise.

    Attributes:
        guard: Repeats calls plainly now and then.
        is_active: Whether it answers the model's calls now.
        answered: How many calls were answered on a fast path.
        asked: How many rows the store was asked for where gradients are recorded, as in training, while it had room.
        computed: How many of them it did not hold.
        gave_up_storing: Whether nothing is stored any more, as what lay on disk was found to be wrong.
        reason: Why a call was last answered on the plain path, in words; None if none was.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, *, retakes: bool = True) -> None:
        self._core = core_of(model)
        self._settings = settings
        self._retakes = retakes
        self._signature = inspect.signature(type(self._core).forward.__get__(self._core))
        self._modules = list(self._core.modules())
        self._checkpointing = [module for module in self._modules if hasattr(module, "gradient_checkpointing")]
        self._norms = [module for module in self._modules if isinstance(module, BatchNorm)]
        self._sparse: list[Any] = [module for module in self._modules if hasattr(module, "attention_type")]
        self._runner = Runner(self._core, self._core.forward)
        self._kinds = CallKinds(self._core, settings, self._runner)
        self.is_active = False
        self._said: set[str] = set()
        # Calls since the engine became active whose loss may read too much, and what takes each back.
        self._revocable: list[tuple[CallKind, Callable[[], None]]] = []
        self.guard = Guard(is_on=settings.guard)
        self.gave_up_storing = False
        self.reason: str | None = None
        self.answered = self.asked = self.computed = 0

    @property
    def model_name(self) -> str:
        """Where the model was loaded from; its class where that is not known."""
        return str(getattr(self._core, "name_or_path", None) or type(self._core).__name__)[-_LONGEST_NAME:]

    @property
    def checked(self) -> SelfCheck | None:
        """Which paths are exact for calls that train; None before the first call."""
        kind = self._kinds.current
        if kind is None:
            return None
        check, paths = kind.check, kind.paths
        return replace(check, paths=paths, boundary=check.boundary if paths.replay is not None else None)

    @property
    def key(self) -> StoreKey | None:
        """Of what is stored for calls that train; None where nothing can be."""
        return self._kinds.key_of(self._kinds.current) if self._kinds.current is not None else None

    @property
    def store(self) -> Store | None:
        """What is kept of the frozen part; None where nothing is."""
        return self._kinds.current.store if self._kinds.current is not None else None

    def can_read(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a fast path may answer a call, as far as its inputs tell."""
        try:
            self._read((), inputs)
        except NeedsPlain:
            return False
        return True

    def check(self, inputs: Mapping[str, Any]) -> SelfCheck:
        """Try the fast paths on a batch.

        Args:
            inputs: What the model's forward is called with.

        Raises:
            NeedsPlain: If no fast path can answer such a call.
        """
        return self._kinds.of(self._read((), inputs)).check

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
        kind = self._kinds.current
        if kind is None or one is None or other is None:
            return None
        dtype = self._settings.torch_dtype
        try:
            with keeping_state(self._core, changes=bool(kind.check.changes)):
                return calibrate(self._runner, kind.paths, one, other, dtype=dtype, folder=folder)
        except FrostlineError:
            raise
        except Exception as reason:  # noqa: BLE001 - the model's own code, on rows of other lengths
            self._say(f"what is frozen cannot be run by itself: {type(reason).__name__}: {reason}")
            return None

    def held(self, inputs: Mapping[str, Any], place: StorePlace) -> tuple[float, int]:
        """Tell what a place holds from earlier runs: the share of a batch's rows, 0 to 1, and the bytes of all rows.

        Raises:
            OutputError: If no store can be opened there.
        """
        call, kind = self._alike(inputs), self._kinds.current
        store = self._kinds.open(kind, place) if kind is not None else None
        if call is None or kind is None or store is None:
            return 0.0, 0
        return 1 - len(store.missing(self._digests(call, kind.paths))) / call.rows.count, store.bytes_used

    def use(self, place: StorePlace | None) -> None:
        """Keep from now on in a place what can be replayed; None to keep nothing that is not kept yet.

        Raises:
            OutputError: If nothing can be kept there.
        """
        self._kinds.use(None if self.gave_up_storing else place)

    def fill(self, inputs: Mapping[str, Any]) -> int:
        """Put the rows of a batch into the store as far as it does not hold them.

        Returns:
            How many were computed.

        Raises:
            NotReplayable: If such rows cannot be stored.
        """
        wanted = self.wanted(inputs)
        return fill_stores(self._core, self._runner, [wanted])[0] if wanted is not None else 0

    def fill_beside(self, engines: Sequence[Engine], inputs: Mapping[str, Any]) -> list[int]:
        """Put the rows of a batch into the stores of engines for the same model, each with a frost line of its own.

        The prefix of the deepest runs once for all that run it alike.

        Args:
            engines: Those that have been given a place to keep activations, this one among them.
            inputs: What the model's forward is called with.

        Returns:
            How many rows were computed for each.

        Raises:
            NotReplayable: If such rows cannot be stored.
        """
        wanted = [engine.wanted(inputs) for engine in engines]
        counts = iter(fill_stores(self._core, self._runner, [one for one in wanted if one is not None]))
        return [next(counts) if one is not None else 0 for one in wanted]

    def wanted(self, inputs: Mapping[str, Any]) -> Wanted | None:
        """Tell what the store is to hold of a batch; None where it is to hold nothing."""
        call, kind = self._alike(inputs), self._kinds.current
        return self._wanted(call, kind) if call is not None and kind is not None else None

    def _wanted(self, call: Call, kind: CallKind) -> Wanted | None:
        if kind.store is None:
            return None
        changes = bool(kind.check.changes)
        return Wanted(call, self._digests(call, kind.paths), kind.paths, kind.store, kind.budget, changes)

    def stop_storing(self) -> None:
        """Let go of the stores, and keep nothing any more."""
        self._kinds.stop_storing()

    def forget_if_changed(self) -> None:
        """Forget all if a tensor beneath the boundary was changed, ``.data`` written to included."""
        self._kinds.forget_if_changed()

    def close(self) -> None:
        """Forget what was found out, and let go of the stores; what is on disk stays there."""
        self._kinds.forget()

    @contextmanager
    def active(self, answer: Forward | None = None) -> Iterator[None]:
        """Have the model's calls answered for a while.

        Args:
            answer: What stands in for the model's forward, and calls `answer` of the engine; `answer` itself unless
                given.
        """
        if self.is_active:
            yield
            return
        self._runner.forward = self._core.forward
        self._revocable.clear()
        self.is_active = True
        try:
            with interposed({self._core: answer or self.answer}):
                yield
        finally:
            self.is_active = False

    def answer(self, *arguments: Any, **options: Any) -> Any:
        """Answer a call of the model's forward: on the fast paths where they are exact, else plainly."""
        try:
            call = self._read(arguments, options)
            kind = self._kinds.of(call)
        except NeedsPlain as reason:
            self._say(str(reason))
            kind = None
        if kind is None or not kind.paths.any:
            return self._runner.forward(*arguments, **options)
        is_padded = not call.rows.full and call.described_by is None  # what is padded here, nobody else sees
        guards = bool(kind.check.per_token) and torch.is_grad_enabled() and is_padded
        if guards and not self._retakes and kind.looks_for_reads():
            return watched(self._runner.forward(*arguments, **options), call.rows.mask, kind.note_read)
        undo = None
        try:
            kind = self._guarded(call, kind)
            if not kind.paths.any:
                return self._runner.forward(*arguments, **options)
            values = self._values(call, kind)
            verifies = kind.paths.one_position is not None and (
                not kind.paths.is_fixed or call.rows.length not in kind.widths
            )
            undo = self._undo(kind) if verifies or guards or kind.check.draws else None
            output = self._run(call, kind, values, verifies=verifies)
            if guards and undo is not None and self._retakes:
                self._revocable.append((kind, undo))
        except OutputError:  # a full disk
            raise
        except Exception as error:  # noqa: BLE001 - the model's own code, given what it may not expect
            self._refuse(kind, failed("", error).how)
        else:
            self.answered += 1
            kind.widths.add(call.rows.length)
            output = call.given_out(output)
            return guarded(output, call.rows.mask, "" if self._retakes else _MEND) if guards else output
        if undo is not None:
            undo()
        return self._runner.forward(*arguments, **options)

    def take_back(self, reason: str) -> None:
        """Take back calls of which the loss reads what was not computed, and answer their kinds plainly.

        Args:
            reason: What `PaddingRead` says.
        """
        self._say(reason)
        for kind, undo in reversed(self._revocable):
            kind.paths = FastPaths()
            undo()
        self._revocable.clear()

    def _run(self, call: Call, kind: CallKind, values: Mapping[str, Packed] | None, *, verifies: bool) -> Any:
        """Answer a call on the fast paths."""
        head = self._runner.late_head if kind.paths.late_logits else None
        if head is not None and head.is_read:  # by whoever had the call before
            kind.paths, head = replace(kind.paths, late_logits=False), None
        output = self._runner.run(call, kind.paths, values, verifies=verifies)
        if head is not None and head.is_read:  # by the forward itself
            kind.paths = replace(kind.paths, late_logits=False)
        return output

    def _alike(self, inputs: Mapping[str, Any]) -> Call | None:
        """A batch as the last call that trains had its inputs; None where it lacks one."""
        kind = self._kinds.current
        try:
            inputs, _ = by_rows(inputs)
            if kind is None or kind.paths.replay is None or kind.tensors - inputs.keys() - kind.paths.unread:
                return None
            tensors = {name: value for name, value in inputs.items() if name in kind.tensors}
            call = self._read((), kind.constants | tensors)
        except NeedsPlain:
            return None
        if not kind.takes(call):
            return None
        return call.with_aligned(kind.paths.aligned) if kind.paths.aligned is not None else call

    def _undo(self, kind: CallKind) -> Callable[[], None]:
        """What takes a forward back that turns out to be wrong."""
        rng = RngState()
        kept = KeptState(self._core) if kind.check.changes else None

        def undo() -> None:
            rng.restore()
            if kept is not None:
                kept.restore()

        return undo

    def _refuse(self, kind: CallKind, reason: str) -> None:
        """Answer a call plainly after all; after some of them, all calls of its kind."""
        self._say(reason)
        kind.refused += 1
        if kind.refused >= _MOST_REFUSALS and kind.refused > self.answered // 10:
            kind.paths = FastPaths()

    def _guarded(self, call: Call, kind: CallKind) -> CallKind:
        """Repeat a call plainly, if it is due; give up what turns out to be wrong.

        Returns:
            What holds for the call.
        """
        if not self.guard.is_due(kind.seen, call.rows.length):
            return kind
        began = time.perf_counter()
        rng = RngState()
        try:
            held, check = self._settled(call, kind, from_store=True)
            self.guard.note(check, time.perf_counter() - began)
            if check.admitted:
                return kind
            if kind.store is not None:  # is it the path, or what is stored?
                held, anew = self._settled(call, kind, from_store=False)
                if anew.admitted:
                    return self._without_stored(call, kind, check)
        finally:
            rng.restore()
        lost = [name for name, own in _named(kind.paths).items() if own and not _named(held)[name]]
        self._fail(kind, check, f"given up: {', '.join(lost) or 'nothing'}")
        if (held.replay, held.stored_positions) != (kind.paths.replay, kind.paths.stored_positions):
            held, kind.store = replace(held, replay=None), None
        kind.paths = held
        return kind

    def _without_stored(self, call: Call, kind: CallKind, check: PathCheck) -> CallKind:
        """Store anew what was found to be wrong; where it is found again, on disk, keep nothing."""
        self._kinds.forget()
        anew = self._kinds.of(call)
        found = anew.store is not None and anew.store.rows > 0
        if found:
            self.stop_storing()
            self.gave_up_storing = True
        consequence = "no more is stored" if found else "it is stored anew"
        self._fail(kind, check, f"what was stored is not what the frozen part gives now: {consequence}")
        return anew

    def _settled(self, call: Call, kind: CallKind, *, from_store: bool) -> tuple[FastPaths, PathCheck]:
        return settle(
            self._core,
            self._runner.forward,
            call,
            fallbacks(kind.paths),
            per_token=kind.check.per_token,
            dtype=kind.check.dtype,
            stored=partial(self._values, kind=kind) if from_store else None,
        )

    def _fail(self, kind: CallKind, check: PathCheck, consequence: str) -> None:
        failure = Failure(kind.seen.calls, check.outputs, check.gradients, consequence)
        self.guard.failures.append(failure)
        differences = (
            f"outputs differ by {check.outputs:.1e}, gradients by {check.gradients or 0:.1e}"
            if check.outputs is not None
            else check.how
        )
        get_logger().warning("Guard: call %d repeated plainly: %s; %s.", failure.call, differences, consequence)

    def _read(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Call:
        """Read a call.

        Raises:
            NeedsPlain: If only the plain forward can answer it.
        """
        reason = self._needs_plain()
        if reason is not None:
            raise NeedsPlain(reason)
        call = read_call(self._signature, arguments, options, getattr(self._core, "config", None))
        if call.has_tokens and any(norm.training for norm in self._norms):
            raise NeedsPlain("batch normalisation counts the padding in")
        if "use_cache" not in self._signature.parameters or call.described_by is not None:
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
            "there are hooks on the model, which would see other values": are_hooked(self._modules, is_harmless),
            "its attention works in blocks of the padded text": any(
                module.attention_type == "block_sparse" for module in self._sparse
            ),
        }
        return next((reason for reason, applies in reasons.items() if applies), None)

    def _digests(self, call: Call, paths: FastPaths) -> list[bytes]:
        call = call.with_aligned(paths.aligned) if paths.aligned is not None else call
        salt = "in train mode" if paths.by_mode and self._core.training else ""
        return call.digests(whole=paths.whole, unread=paths.unread, salt=salt)

    def _values(self, call: Call, kind: CallKind) -> dict[str, Packed] | None:
        """What is stored of the batch's rows; None to run everything."""
        wanted = self._wanted(call, kind)
        if wanted is None or self._is_random(kind):
            return None
        missing = wanted.missing
        if wanted.has_room and torch.is_grad_enabled():
            self.asked += len(wanted.digests)
            self.computed += len(missing)
        if missing:
            fill_stores(self._core, self._runner, [wanted])
            if wanted.missing:  # there was no room for them
                return None
        device = call.rows.mask.device
        values = wanted.store.get(wanted.digests)
        return {name: Packed(own.values.to(device, non_blocking=True), own.lengths) for name, own in values.items()}

    def _is_random(self, kind: CallKind) -> bool:
        """Whether frozen layers draw random numbers, so that nothing of them can be kept."""
        random = any(module.training for module in kind.skipped)
        if random:
            self._say("frozen layers are in train mode, dropout included, so that nothing of them is kept")
        return random

    def _say(self, reason: str) -> None:
        self.reason = reason
        if reason not in self._said:
            self._said.add(reason)
            get_logger().info("Plain path: %s.", reason)


def _named(paths: FastPaths) -> dict[str, bool]:
    """Which paths are among them, by the words for them."""
    return {
        "padding-free layers": paths.is_padding_free or paths.trim,
        "one position": paths.one_position is not None,
        "replay": paths.replay is not None,
        "matrix products by oneDNN": paths.products,
        "embedding gradients": paths.tables,
        "logits where a loss counts them": paths.late_logits,
    }
