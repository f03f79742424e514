"""Logits that are computed only where a loss counts them.

The head of a language model gives out one value per word of the vocabulary for each position, and the loss leaves out
those that are labelled -100: prompts, padding, and in masked language modelling whatever is not masked. Here the head
gives out a tensor that holds the hidden states and has computed nothing. Cross-entropy takes the rows that count, and
has the head compute these; whatever else reads the tensor has all of it computed. So nobody sees a difference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from frostline.compat.tensors import schema_of, tree_map, version_of, without_memory, without_torch_function

if TYPE_CHECKING:
    from frostline.engine.interpose import Forward

# Below so many words the head is cheap beside the layers.
_LEAST_WORDS = 1000
_TOO_LATE = (
    "Logits that were not computed are read after the head's weights, or a view of them, were written to.\n"
    "Read them before that, or switch the engine off."
)
_CROSS_ENTROPY = inspect.signature(functional.cross_entropy)


def head_of(model: nn.Module) -> nn.Linear | None:
    """The layer of a language model that gives out a value per word of a large vocabulary; None where there is none."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    return head if type(head) is nn.Linear and head.out_features >= _LEAST_WORDS else None


class LateHead:
    """The head of one model.

    Args:
        head: The layer.

    Attributes:
        is_read: Whether somebody read logits of which not all were computed, since it was last set to False.
    """

    def __init__(self, head: nn.Linear) -> None:
        self.head = head
        self.is_read = False

    def forward(self, original: Forward) -> Forward:
        """A forward that computes nothing before its result is read, where a gradient is to be taken of it."""

        def forward(states: Tensor) -> Any:
            if not torch.is_grad_enabled() or torch.is_autocast_enabled(states.device.type):
                return original(states)
            return late(states, _Source(self, original), states.dtype)

        return forward


class _Source:
    """Where late logits come from: the head, with the weights that it has now."""

    def __init__(self, owner: LateHead, compute: Callable[[Tensor], Tensor]) -> None:
        self._owner = owner
        self.compute = compute
        self.parameters = [own for own in (owner.head.weight, owner.head.bias) if own is not None]
        self._versions = [version_of(own) for own in self.parameters]
        self.written: _Content | None = None  # what somebody wrote to, or watches the gradient of

    def note_read(self) -> None:
        self._owner.is_read = True

    def has_changed(self) -> bool:
        return [version_of(own) for own in self.parameters] != self._versions


class _Content:
    """What one late tensor stands for."""

    def __init__(self, states: Tensor, source: _Source, dtype: torch.dtype) -> None:
        self._states = states
        self._source = source
        self._dtype = dtype
        self._values: Tensor | None = None
        _unread.add(self)

    def values(self) -> Tensor:
        """All of it, without a graph.

        Raises:
            RuntimeError: If the head's weights, or logits of the same call, were written to since.
        """
        if self._values is None:
            if self._source.has_changed() or self._source.written not in {None, self}:
                raise RuntimeError(_TOO_LATE)
            self._source.note_read()
            with torch.no_grad():
                self._values = self._source.compute(self._states.detach()).to(self._dtype)
            _unread.discard(self)
        return self._values


_unread: WeakSet[_Content] = WeakSet()


def _before_step(*_: Any) -> None:
    """Compute what somebody still holds before an optimizer changes the weights."""
    for content in list(_unread):
        content.values()


register_optimizer_step_pre_hook(_before_step)


class LateLogits(torch.Tensor):
    """Logits that are not computed yet; as a tensor it behaves as if they were.

    Attributes:
        states: What the head was given, (..., width), in the graph.
        source: What computes logits of it.
    """

    states: Tensor
    source: _Source
    content: _Content

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Put off what only moves rows about, and compute what a loss counts; all else sees all logits."""
        kwargs = kwargs or {}
        own = args[0] if args and isinstance(args[0], cls) else None
        if own is not None and func in _WATCHES:
            own.source.written = own.content
        answer = _ANSWERS.get(func)
        found: Tensor | None = None
        if answer is not None and own is not None and _is_free(own):
            found = answer(own, *args[1:], **kwargs)
        if func is functional.cross_entropy:
            found = _counted(*args, **kwargs)
        if found is not None:
            return found
        with without_torch_function():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Whatever operator comes here reads values."""
        if args and isinstance(args[0], cls) and getattr(schema_of(func), "is_mutable", False):
            args[0].source.written = args[0].content
        args, kwargs = tree_map(_value_of, (args, kwargs or {}))
        return func(*args, **kwargs)


def _value_of(leaf: Any) -> Any:
    return leaf.content.values() if isinstance(leaf, LateLogits) else leaf


class _Late(torch.autograd.Function):
    """The way back for whoever reads all logits: through the head, as ever."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, source: _Source, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(states, *parameters)
        ctx.compute = source.compute
        shape = (*states.shape[:-1], len(parameters[0]))
        made = without_memory(LateLogits, shape, dtype, states.device)
        made.content = _Content(states, source, dtype)
        return cast("Tensor", made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, *parameters = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3:]]
        goes_on = torch.is_grad_enabled()  # create_graph=True
        with torch.enable_grad():
            again = states if goes_on else states.detach().requires_grad_()
            output = ctx.compute(again)
            inputs = [own for own, needed in zip((again, *parameters), wanted, strict=True) if needed]
            given = gradients[0].to(output.dtype)
            found = iter(torch.autograd.grad(output, inputs, given, create_graph=goes_on))
        first, *rest = (next(found) if needed else None for needed in wanted)
        return first, None, None, *rest


def with_states(logits: LateLogits, change: Callable[[Tensor], Tensor]) -> LateLogits:
    """The same logits of states that went through something else on their way."""
    return late(change(logits.states), logits.source, logits.dtype)


def late(states: Tensor, source: _Source, dtype: torch.dtype) -> LateLogits:
    """The logits of some states, to be computed when they are read."""
    made: LateLogits = _Late.apply(states, source, dtype, *source.parameters)  # type: ignore[no-untyped-call]
    made.states, made.source = states, source
    return made


def _as_type(own: LateLogits, *given: Any, **options: Any) -> LateLogits | None:
    """Of ``to``: another type of floats, and the device that it is on."""
    if options or len(given) != 1:
        return None
    if isinstance(given[0], torch.dtype) and given[0].is_floating_point:
        return own if given[0] == own.dtype else late(own.states, own.source, given[0])
    return own if isinstance(given[0], torch.device) and given[0] == own.device else None


def _as_float(own: LateLogits) -> LateLogits | None:
    return _as_type(own, torch.float32)


def _reshaped(own: LateLogits, *shape: Any) -> LateLogits | None:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    if not sizes or sizes[-1] != own.shape[-1] or not all(isinstance(size, int) for size in sizes):
        return None
    return late(own.states.reshape(*sizes[:-1], own.states.shape[-1]), own.source, own.dtype)


def _sliced(own: LateLogits, index: Any) -> LateLogits | None:
    """Of slices that leave the last axis as it is."""
    parts = index if isinstance(index, tuple) else (index,)
    given = [part for part in parts if part is not Ellipsis]
    reaches = len(given) == own.dim() or (Ellipsis in parts and parts[-1] is not Ellipsis)
    if not all(isinstance(part, slice) for part in given) or (reaches and given[-1] != slice(None)):
        return None
    return late(own.states[index], own.source, own.dtype)


def _itself(own: LateLogits) -> LateLogits:
    return own


def _is_free(own: LateLogits) -> bool:
    """Whether nobody wrote to it, or watches its gradient."""
    return own.source.written is None


_ANSWERS: dict[Any, Callable[..., LateLogits | None]] = {
    Tensor.float: _as_float,
    Tensor.to: _as_type,
    Tensor.view: _reshaped,
    Tensor.reshape: _reshaped,
    Tensor.contiguous: _itself,
    Tensor.__getitem__: _sliced,
}


_WATCHES = {Tensor.register_hook, Tensor.retain_grad}


def _counted(*args: Any, **kwargs: Any) -> Tensor | None:
    """Cross-entropy from the logits of the rows that count; None where that is not known to be the same."""
    given = _CROSS_ENTROPY.bind(*args, **kwargs)
    given.apply_defaults()
    logits, target = given.arguments["input"], given.arguments["target"]
    is_plain = given.arguments["size_average"] is None and given.arguments["reduce"] is None
    if not isinstance(logits, LateLogits) or not is_plain or not _is_free(logits):
        return None
    if logits.dim() != 2 or target.dim() != 1 or target.is_floating_point():
        return None
    if given.arguments["reduction"] not in {"mean", "sum"}:
        return None
    counts = target != given.arguments["ignore_index"]
    chosen = logits.source.compute(logits.states[counts]).to(logits.dtype)
    given.arguments |= {"input": chosen, "target": target[counts]}
    return functional.cross_entropy(*given.args, **given.kwargs)
