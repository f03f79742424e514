"""Which one position of each row is read of a tensor, told by the graph of autograd and not by values.

From what a forward gave out, the graph is followed down to the tensor in question. Where every way to it leads through
a selection of one position, with nothing in between but what treats each position alone, no other position can count.
A selection with a fixed place holds for every batch that takes the same branches; one by an index has to be compared in
each batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from frostline.compat.tensors import saved_by
from frostline.engine.kernels.onednn_linear import is_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

# Functions of single values, by torch's names for their backward.
_OF_VALUES = frozenset(
    {
        *("Abs", "Add", "Clamp", "Clone", "Div", "Elu", "Erf", "Exp", "Gelu", "Hardswish", "Hardtanh", "LeakyRelu"),
        *("Log", "MaskedFill", "Mish", "Mul", "NativeDropout", "Neg", "Pow", "Relu", "Rsqrt", "Sigmoid", "Silu"),
        *("Softplus", "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy", "Where", "Alias"),
    }
)
# What leaves values in their order, and only counts them otherwise.
_VIEWS = frozenset({"View", "UnsafeView", "ReshapeAlias"})
_FROM_END = 1 << 63  # torch saves -1 as 2^64 - 1


class _Mark(torch.autograd.Function):
    """Gives a tensor on, and stands in the graph where it passed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, requires: Tensor) -> Tensor:  # noqa: ARG004
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradients[0], None


def marked(tensor: Tensor) -> tuple[Tensor, Any]:
    """Give a tensor a place in the graph.

    Args:
        tensor: Any; it need not require a gradient.

    Returns:
        The tensor, requiring one, and the node of the graph that stands for it.
    """
    with torch.enable_grad():
        own: Tensor = _Mark.apply(tensor, tensor.new_zeros(0).requires_grad_())  # type: ignore[no-untyped-call]
    return own, own.grad_fn


@dataclass(frozen=True)
class Selection:
    """The one position that is read of each row.

    Attributes:
        places: Which, int64, (rows,).
        is_fixed: Whether every selection on the way is one of a fixed place, counted from the start.
    """

    places: Tensor
    is_fixed: bool


class NotOnePosition(Exception):  # noqa: N818 - it is no error, but an answer
    """Something reads more than one position, or it cannot be told what it reads."""


def selection_of(outputs: Iterable[Tensor], node: Any, shape: tuple[int, int]) -> Selection | None:
    """Tell which one position is read of a tensor.

    Args:
        outputs: Everything that was computed from it.
        node: Stands for it in the graph.
        shape: Its rows and positions.

    Returns:
        The position; None where several are read, or none, or where that cannot be told.
    """
    search = _Search(node, shape)
    try:
        for output in outputs:
            if output.grad_fn is not None and search.reach(output.grad_fn) == "all":
                return None
    except NotOnePosition:
        return None
    if not search.found:
        return None
    places = search.found[0].places
    if any(not torch.equal(places, one.places) for one in search.found):
        return None
    return Selection(places, is_fixed=all(one.is_fixed for one in search.found))


class _Search:
    """What of a tensor reaches each node: nothing, one position of each row, or all."""

    def __init__(self, node: Any, shape: tuple[int, int]) -> None:
        self._rows, self._length = shape
        self._reached: dict[Any, str] = {node: "all"}
        self.found: list[Selection] = []

    def reach(self, top: Any) -> str:
        """What of the tensor reaches a node.

        Raises:
            NotOnePosition: If it is more than one position, and not all of them apart.
        """
        waiting = [top]
        while waiting:
            node = waiting[-1]
            if node in self._reached:
                waiting.pop()
                continue
            beneath = [inner for inner, _ in node.next_functions if inner is not None]
            unknown = [inner for inner in beneath if inner not in self._reached]
            if unknown:
                waiting.extend(unknown)
                continue
            waiting.pop()
            reached = {self._reached[inner] for inner in beneath}
            try:
                through = self._through(node) if "all" in reached else "one" if "one" in reached else "nothing"
            except AttributeError:  # another version of torch keeps it by another name
                raise NotOnePosition from None
            self._reached[node] = through
        return self._reached[top]

    def _through(self, node: Any) -> str:
        """What comes out of a node that is given all positions."""
        name = node.name()
        # Functions of somebody's own have no number, whatever they are called.
        kind = name.rstrip("0123456789").removesuffix("Backward") if name[-1:].isdigit() else ""
        selection = _SELECTIONS.get(kind)
        if selection is not None and self._is_whole(node):
            places = selection(node, self._rows, self._length)
            if places is not None:
                self.found.append(places)
                return "one"
        if kind in _OF_VALUES or kind in _VIEWS or self._is_row_wise(kind, node):
            return "all"
        raise NotOnePosition

    def _is_whole(self, node: Any) -> bool:
        return tuple(saved_by(node, "self_sym_sizes")[:2]) == (self._rows, self._length)

    def _is_row_wise(self, kind: str, node: Any) -> bool:
        """Whether a node treats the last axis of each position alone."""
        whole, flat = (self._rows, self._length), self._rows * self._length
        if kind == "NativeLayerNorm":
            shape = saved_by(node, "input").shape
            return len(saved_by(node, "normalized_shape")) == 1 and len(shape) > 2 and tuple(shape[:2]) == whole
        if kind in {"Mean", "Sum"}:
            sizes, axes = saved_by(node, "self_sym_sizes"), saved_by(node, "dim", ())
            last = len(sizes) - 1
            return last > 1 and tuple(sizes[:2]) == whole and [_signed(axis) % len(sizes) for axis in axes] == [last]
        if kind == "Addmm":
            return bool(saved_by(node, "mat1_sym_sizes")[0] == flat)
        if kind == "Mm":
            return bool(saved_by(node, "self_sym_sizes")[0] == flat)
        return is_product(node) and tuple(node.saved_tensors[0].shape[:2]) == whole


def _signed(place: int) -> int:
    return place - (1 << 64) if place >= _FROM_END else place


def _of_select(node: Any, rows: int, length: int) -> Selection | None:
    if _signed(saved_by(node, "dim")) != 1:
        return None
    index = _signed(saved_by(node, "index"))
    return Selection(torch.full((rows,), index % length), is_fixed=index >= 0)


def _of_slice(node: Any, rows: int, length: int) -> Selection | None:
    begin, end = _signed(saved_by(node, "start")), _signed(saved_by(node, "end"))
    if _signed(saved_by(node, "dim")) != 1 or begin < 0 or end != begin + 1:
        return None
    return Selection(torch.full((rows,), begin % length), is_fixed=True)


def _of_index(node: Any, rows: int, length: int) -> Selection | None:
    indices = saved_by(node, "indices")
    if len(indices) < 2 or any(not isinstance(index, torch.Tensor) for index in indices[:2]):
        return None
    each, places = (index.cpu() for index in indices[:2])
    if places.shape not in {(), (1,), (rows,)} or places.dtype == torch.bool:
        return None
    if not torch.equal(each, torch.arange(rows)):
        return None
    places = places.expand(rows)
    return Selection(torch.where(places < 0, places + length, places), is_fixed=False)


_SELECTIONS: Mapping[str, Callable[[Any, int, int], Selection | None]] = {
    "Select": _of_select,
    "Slice": _of_slice,
    "Index": _of_index,
}
