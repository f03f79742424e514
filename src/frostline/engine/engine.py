"""The engine: answers the calls of a model's forward on the fastest path that is exact for it."""

from __future__ import annotations

import hashlib
import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from frostline.anatomy.modelmap import ModelMap
from frostline.checkpoints.stored import whole_digest
from frostline.engine.admission import admit
from frostline.engine.calibration import calibrate
from frostline.engine.calls import Call, Layout, read_call
from frostline.engine.interpose import interposed
from frostline.engine.paths import Paths, Runner
from frostline.engine.replay import NotReplayable
from frostline.engine.route import core_of
from frostline.engine.store.packed import Packed
from frostline.engine.store.spec import StoreKey, dtype_name
from frostline.engine.stored import spec_of
from frostline.evidence.fingerprint import tensor_digest
from frostline.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from frostline.engine.checked import SelfCheck
    from frostline.engine.costs import Measured
    from frostline.engine.settings import EngineSettings
    from frostline.engine.store.spec import StreamSpec
    from frostline.engine.store.store import Store

    # Given what was admitted, what makes the key (it reads the whole prefix) and the streams: a store and the most
    # bytes that it may take, or nothing.
    StoreMaker = Callable[[SelfCheck, Callable[[], StoreKey], list[StreamSpec]], tuple[Store, int] | None]

_Version = tuple[int, torch.dtype, int] | None
_Prefix = tuple[tuple[dict[str, torch.Tensor], str], ...]

# Where transformers has the hooks that it leaves on a model once outputs were asked for; they see nothing unasked.
_CAPTURING = "transformers.utils.output_capturing"
_LONGEST_NAME = 200  # its end tells more than its beginning
# Of a config, what activations do not depend on.
_NOT_IN_KEY = frozenset(
    {
        "_name_or_path",
        "architectures",
        "transformers_version",
        "id2label",
        "label2id",
        "problem_type",
        "num_labels",
    }
)


@dataclass
class _State:
    """What was found out about a model, and holds as long as nobody changes it.

    Attributes:
        flags: Which parameters train.
        precision: What autocast rounds to; None outside of it.
        prefix: The tensors beneath the boundary, by what holds each of a module's and its name there.
        versions: What each of them was: where it lay, and how often it was written.
        skipped: The modules that are not run.
        check: Which paths are exact.
        store: What is kept; None to run everything.
        budget: The most bytes that the store may take.
    """

    flags: tuple[bool, ...]
    precision: torch.dtype | None
    prefix: _Prefix
    versions: tuple[_Version, ...]
    skipped: tuple[nn.Module, ...]
    check: SelfCheck
    store: Store | None = None
    budget: int = 0


class Engine:
    """Runs one model's forwards on its fast paths.

    While it is active, a call of the model's forward is read; on the first one the fast paths are tried on a few of
    its rows; then it is answered on those that are exact, from the store as far as it holds the rows. A call that
    no fast path can answer is answered by the model's own forward, and the reason is said once.

    Args:
        model: The model, wrapped or not.
        settings: What the engine may do.
        make_store: Makes the store, or none, when a self-check has admitted replay.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, make_store: StoreMaker) -> None:
        self._core = core_of(model)
        self._settings = settings
        self._make_store = make_store
        self._signature = inspect.signature(type(self._core).forward.__get__(self._core))
        self._parameters = list(self._core.parameters())
        self._checkpointing = [module for module in self._core.modules() if hasattr(module, "gradient_checkpointing")]
        self._norms = [module for module in self._core.modules() if isinstance(module, _BatchNorm)]
        self._sparse: list[Any] = [module for module in self._core.modules() if hasattr(module, "attention_type")]
        self._modules = list(self._core.modules())
        self._states: dict[Layout, _State] = {}
        self._state: _State | None = None  # of the last call
        self._said: set[str] = set()
        self._runner = Runner(self._core, self._core.forward)

    @property
    def model_name(self) -> str:
        """Where the model was loaded from; its class where that is not known."""
        return str(getattr(self._core, "name_or_path", None) or type(self._core).__name__)[-_LONGEST_NAME:]

    @property
    def check(self) -> SelfCheck | None:
        """Which paths are exact; None before the first call."""
        return self._state.check if self._state is not None else None

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
        with interposed({self._core: self._answer}):
            yield

    def ready(self, inputs: Mapping[str, Any]) -> SelfCheck | None:
        """Try the fast paths on a batch; None where no fast path can answer such a call.

        Args:
            inputs: What the model's forward is called with.
        """
        call = self._read((), inputs)
        return None if isinstance(call, str) else self._state_for(call).check

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
        one = self._read((), filling)
        other = one if step is filling else self._read((), step)
        if self.check is None or isinstance(one, str) or isinstance(other, str):
            return None
        dtype = self._settings.torch_dtype
        try:
            return calibrate(self._runner, self.check.paths, one, other, dtype=dtype, folder=folder)
        except NotReplayable:
            return None

    def missing(self, inputs: Mapping[str, Any], store: Store | None = None) -> int:
        """How many rows of a batch a store does not hold; the engine's own unless told."""
        call = self._read((), inputs)
        store = store or self.store
        if isinstance(call, str) or store is None or self.check is None:
            return 0
        return len(store.missing(call.digests(whole=self.check.paths.whole)))

    def fill(self, inputs: Mapping[str, Any]) -> int:
        """Put the rows of a batch into the store as far as it does not hold them.

        Returns:
            How many were computed.
        """
        call = self._read((), inputs)
        if isinstance(call, str):
            return 0
        state = self._state_for(call)
        if state.store is None:
            return 0
        try:
            return self._fill(call, call.digests(whole=state.check.paths.whole), state.store, state)
        except NotReplayable as reason:
            self._say(str(reason))
            return 0

    def close(self) -> None:
        """Let go of the store; what is on disk stays there."""
        for layout in list(self._states):
            self._drop(layout)
        self._state = None

    def _answer(self, *arguments: Any, **options: Any) -> Any:
        call = self._read(arguments, options)
        if isinstance(call, str):
            self._say(call)
            return self._runner.forward(*arguments, **options)
        state = self._state_for(call)
        try:
            return self._runner.run(call, state.check.paths, self._values(call, state))
        except NotReplayable as reason:
            self._say(str(reason))
            return self._runner.forward(**call.inputs)

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
            "there are hooks on the model, which would see other values": _are_hooked(self._modules),
            "its attention works in blocks of the padded text": any(
                module.attention_type == "block_sparse" for module in self._sparse
            ),
        }
        return next((reason for reason, applies in reasons.items() if applies), None)

    def _values(self, call: Call, state: _State) -> dict[str, Packed] | None:
        """What is stored of the batch's rows; None to run everything."""
        if state.store is None or self._is_random(state):
            return None
        digests = call.digests(whole=state.check.paths.whole)
        self._fill(call, digests, state.store, state)
        if state.store.bytes_used >= state.budget and state.store.missing(digests):  # there was no room for them
            return None
        device = call.rows.mask.device
        values = state.store.get(digests)
        return {name: Packed(own.values.to(device, non_blocking=True), own.lengths) for name, own in values.items()}

    def _fill(self, call: Call, digests: list[bytes], store: Store, state: _State) -> int:
        """Compute what the store does not hold of a batch, and keep it as far as there is room.

        Returns:
            How many rows were computed.
        """
        missing = store.missing(digests)
        if not missing or store.bytes_used >= state.budget:
            return 0
        values = self._runner.tap(call.select(missing), state.check.paths)
        store.put([digests[row] for row in missing], values)
        return len(missing)

    def _is_random(self, state: _State) -> bool:
        """Whether frozen layers draw random numbers, so that nothing of them can be kept."""
        random = any(module.training for module in state.skipped)
        if random:
            self._say("frozen layers follow train(), dropout included (frozen_mode='train')")
        return random

    def _state_for(self, call: Call) -> _State:
        flags = tuple(parameter.requires_grad for parameter in self._parameters)
        device = call.rows.mask.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        layout = call.layout or "right"  # a call without a layout is not read
        state = self._states.get(layout)
        if (
            state is not None
            and (state.flags, state.precision) == (flags, precision)
            and state.versions == _versions(state.prefix)
        ):
            self._state = state
            return state
        self._drop(layout)
        check = admit(
            self._core,
            self._runner.forward,
            call,
            padding_free=self._settings.padding_free,
            store_dtype=self._settings.torch_dtype,
        )
        replay = check.paths.replay
        if replay is None:
            self._states[layout] = self._state = _State(flags, precision, (), (), (), check)
            return self._state
        prefix = tuple(map(self._place, self._beneath(replay.route.boundary)))
        outer = (self._core.get_submodule(path) for path in (*replay.route.tables, *replay.route.skipped))
        skipped = tuple(inner for module in outer for inner in module.modules())
        self._states[layout] = self._state = _State(flags, precision, prefix, _versions(prefix), skipped, check)
        streams = [spec_of(stream, check.paths) for stream in replay.streams]
        key = cache(partial(self._key, check.paths, replay.route.boundary, precision))  # it reads the whole prefix
        made = self._make_store(check, key, streams)
        if made is not None:
            self._state.store, self._state.budget = made
        return self._state

    def _drop(self, layout: Layout) -> None:
        state = self._states.pop(layout, None)
        if state is not None and state.store is not None:
            state.store.close()

    def _beneath(self, boundary: str) -> list[str]:
        """Names of all parameters and buffers beneath a unit."""
        units = ModelMap.of(self._core).units
        beneath = units[: [unit.name for unit in units].index(boundary)]
        return sorted(name for unit in beneath for name in (*unit.parameter_names, *unit.buffer_names))

    def _place(self, name: str) -> tuple[dict[str, Any], str]:
        """What holds a parameter or buffer, and its name there."""
        path, _, own = name.rpartition(".")
        module = self._core.get_submodule(path)
        return next(held for held in (module._parameters, module._buffers) if own in held), own  # noqa: SLF001 - no public name

    def _key(self, paths: Paths, boundary: str, precision: torch.dtype | None) -> StoreKey:
        config = getattr(self._core, "config", None)
        fields = config.to_dict() if config is not None else {}
        text = json.dumps({k: v for k, v in fields.items() if k not in _NOT_IN_KEY}, sort_keys=True, default=str)
        details = [*sorted(paths.stored_positions.values()), *(["with padding"] if paths.whole else [])]
        parameter = self._parameters[0]
        autocast = f", autocast to {dtype_name(precision)}" if precision is not None else ""
        return StoreKey(
            prefix=self._prefix_digest(boundary),
            config=hashlib.sha256(text.encode()).hexdigest(),
            inputs="rows by the digest of their model inputs",
            boundary=", ".join([boundary, *details]),
            dtype=dtype_name(self._settings.torch_dtype or parameter.dtype),
            attention=f"{getattr(config, '_attn_implementation', None)} on {parameter.device.type}{autocast}",
        )

    def _prefix_digest(self, boundary: str) -> str:
        """One digest of all parameters and buffers beneath the boundary, in hex digits."""
        tensors = dict(self._core.named_parameters()) | dict(self._core.named_buffers())
        names = self._beneath(boundary)
        with ThreadPoolExecutor() as pool:
            digests = pool.map(tensor_digest, (tensors[name] for name in names))
        return whole_digest(dict(zip(names, digests, strict=True)))

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            get_logger().info("Plain path: %s.", reason)


def _versions(tensors: _Prefix) -> tuple[_Version, ...]:
    """What tells that a tensor was replaced, moved, cast, or written; writing through ``.data`` goes unnoticed."""
    found = [held.get(name) for held, name in tensors]
    return tuple(
        None if tensor is None else (tensor.data_ptr(), tensor.dtype, tensor._version)  # noqa: SLF001 - not public
        for tensor in found
    )


def _are_hooked(modules: Iterable[nn.Module]) -> bool:
    # No public name for any of them; one loop, as it is run in every step.
    for module in modules:
        if module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001
            return True
        hooks = module._forward_hooks  # noqa: SLF001
        if hooks and any(hook.__module__ != _CAPTURING for hook in hooks.values()):
            return True
    return False
