"""Features of data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def fixed_list(feature: Any, length: int) -> Any:
    """Give the feature of a list of so many values.

    In: datasets 4.0 and newer as ``List``. Else: ``Sequence``, which was the same.
    """
    import datasets

    return getattr(datasets, "List", datasets.Sequence)(feature, length=length)


def item_of(feature: Any) -> Any:
    """Give the feature of the values in a list; None for a feature that is no list.

    In: datasets 4.0 and newer as ``List``, and all as ``LargeList``. Else: ``Sequence``, or a list of one feature.
    """
    import datasets

    if isinstance(feature, list):
        return feature[0]
    kinds = tuple(getattr(datasets, name) for name in ("List", "LargeList", "Sequence") if hasattr(datasets, name))
    return getattr(feature, "feature", None) if isinstance(feature, kinds) else None


def is_mixed(feature: Any) -> bool:
    """Tell whether a column holds values of several types, as `of_mixed` makes it.

    In: datasets 4.7 and newer, whose reader of JSON makes such columns too.
    """
    import datasets

    kind = getattr(datasets, "Json", None)
    return getattr(feature, "dtype", None) == "large_binary" if kind is None else isinstance(feature, kind)


def of_mixed(texts: list[str]) -> pa.Array:
    """Make a column of values of several types, each written as JSON.

    In: datasets 4.7 and newer. Else: large binary values, which no reader of JSON makes.
    """
    import datasets
    import pyarrow as pa

    if not hasattr(datasets, "Json"):
        return pa.array([text.encode() for text in texts], pa.large_binary())
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(texts, pa.string()))
