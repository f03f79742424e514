"""The fast paths of one model: what its forward is spared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frostline.engine.packing.last_layer import Position
    from frostline.engine.packing.packing import PackingMode
    from frostline.engine.replay.replay import Replay


@dataclass(frozen=True)
class FastPaths:
    """What a model's forward is spared.

    Attributes:
        trim: Whether positions that are padding in every row are cut off.
        packing: How its layers run without padding; None to run them padded.
        places: Where values have the axes of the batch; None to tell it by their shape.
        positions: Of how many positions a row that is no text consists inside of the model, where one of them is all
            that is read behind the layers; None to take them as the call has them.
        single: The one position that its last layer is run for; None to run it for all.
        folded: Whether its keys and values are folded into query and attended value there.
        products: Whether oneDNN computes the products of its linear layers.
        tables: Whether gradients of large embedding tables are taken in memory that is kept.
        late_logits: Whether the head of a language model computes logits only where a loss counts them.
        replay: How it runs from stored activations; None to run it from its inputs.
        stored_positions: Per stream of which one position only is stored, which one.
        whole: Whether what is stored of a row holds for it and its padding only, and is stored with the padding.
        chains: Per stack of the text, the paths of its layers, each taking what the one before gave out.
        calls: Per chain that runs packed, how often the forward enters it.
        aligned: Names of the inputs with one value per token; None for all that have the shape.
        unread: Names of the inputs that the layers beneath the boundary never read.
        is_fixed: Whether the one position is read at a fixed place, so that it need not be looked up in each batch.
        drops: Whether dropout acts beneath the boundary, outside of frozen modules, and is left out there.
        by_mode: Whether what is stored of a text is another thing in train mode than in eval mode.
    """

    trim: bool = False
    packing: PackingMode | None = None
    places: frozenset[str] | None = None
    positions: int | None = None
    single: Position | None = None
    folded: bool = False
    products: bool = False
    tables: bool = False
    late_logits: bool = False
    replay: Replay | None = None
    stored_positions: Mapping[str, Position] = field(default_factory=dict)
    whole: bool = False
    chains: tuple[tuple[str, ...], ...] = ()
    calls: Mapping[int, int] | None = None
    aligned: frozenset[str] | None = None
    unread: frozenset[str] = frozenset()
    is_fixed: bool = False
    drops: bool = False
    by_mode: bool = False

    @property
    def one_position(self) -> Position | None:
        """Of which position of each row something is computed or stored for that one only."""
        return self.single or next(iter(self.stored_positions.values()), None)

    @property
    def is_padding_free(self) -> bool:
        """Whether its layers run without padding; the last one alone may be packed where rows have none."""
        return self.packing is not None and self.positions is None

    @property
    def any(self) -> bool:
        """Whether it is spared anything."""
        cheaper = self.trim or self.products or self.tables or self.late_logits
        return cheaper or self.packing is not None or self.replay is not None
