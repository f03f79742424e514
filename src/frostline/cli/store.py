"""``frostline store``: the activations that earlier runs kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.render import print_json, print_table, print_text
from frostline.errors import StoreError

store = options.group("store", "List, verify or clear the activations that runs kept on disk.")

StoreDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of stores; by default $FROSTLINE_STORE, or the user's cache."),
]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY...]", help="Which stores: beginnings of their keys.")]

_SPANS = (("days", 86_400), ("hours", 3_600), ("minutes", 60))
_SHOWN_DIGITS = 12


@store.command("list")
def list_(store_dir: StoreDir = None, as_json: options.Json = False, keys: Keys = None) -> None:
    """Say what each store is for, how large it is, and whether it is complete."""
    from rich.filesize import decimal

    from frostline.store.listing import describe, stores_in

    folder = _folder(store_dir)
    found = [describe(path) for path in stores_in(folder, keys or ())]
    if as_json:
        print_json([info.to_dict() | {"folder": str(folder / info.name)} for info in found])
        return
    if not found:
        print_text(f"There is no store in '{folder}'.")
        return
    print_table(
        ("key", "model", "boundary", "dtype", "rows", "size", "state", "age"),
        (
            (
                info.name[:_SHOWN_DIGITS],
                info.model,
                info.boundary,
                info.dtype,
                f"{info.rows:,}",
                decimal(info.bytes),
                "damaged" if info.fault else "complete" if info.complete else "begun",
                _age(info.age_in_seconds),
            )
            for info in found
        ),
        ("rows", "size"),
        ("dtype", "boundary", "age", "rows"),
    )
    print_text("", f"{len(found)} in '{folder}', {decimal(sum(info.bytes for info in found))}.")
    print_text(*(f"{info.name[:_SHOWN_DIGITS]}: {info.fault}." for info in found if info.fault))


@store.command()
def verify(store_dir: StoreDir = None, as_json: options.Json = False, keys: Keys = None) -> None:
    """Compare all stored data with its checksums; the status is 1 where something is damaged."""
    from rich.filesize import decimal

    from frostline.store.listing import stores_in
    from frostline.store.listing import verify as verify_store

    folder = _folder(store_dir)
    found = [verify_store(path) for path in stores_in(folder, keys or ())]
    if as_json:
        print_json([result.to_dict() for result in found])
    else:
        for result in found:
            verdict = "damaged" if result.faults else "sound"
            print_text(f"{result.name[:_SHOWN_DIGITS]}: {verdict}, {result.blocks:,} blocks, {decimal(result.bytes)}.")
            print_text(*(f"  {fault}" for fault in result.faults))
        if not found:
            print_text(f"There is no store in '{folder}'.")
    if any(result.faults for result in found):
        if not as_json:
            print_text(
                "What is damaged is never used: a run that needs it computes it again, and leaves the store whole."
            )
        raise typer.Exit(1)


@store.command()
def clear(
    store_dir: StoreDir = None,
    everything: Annotated[bool, typer.Option("--all", help="Clear all stores of the folder.")] = False,
    as_json: options.Json = False,
    keys: Keys = None,
) -> None:
    """Delete stores; what they held is computed again when it is needed."""
    from rich.filesize import decimal

    from frostline.store.listing import clear as clear_store
    from frostline.store.listing import stores_in

    if bool(keys) == everything:
        raise StoreError("Name the stores to clear, or give --all, and not both.\nSee: frostline store list")
    folder = _folder(store_dir)
    freed = {path.name: clear_store(path) for path in stores_in(folder, keys or ())}
    if as_json:
        print_json({"freed_bytes": sum(freed.values()), "cleared": list(freed)})
        return
    print_text(*(f"{name[:_SHOWN_DIGITS]}: {decimal(size)} freed." for name, size in freed.items()))
    print_text(f"{len(freed)} cleared in '{folder}', {decimal(sum(freed.values()))} freed.")


def _folder(named: Path | None) -> Path:
    from frostline.store.folder import default_folder

    return default_folder() if named is None else options.place(named)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    unit, length = next(((unit, length) for unit, length in _SPANS if seconds >= 2 * length), ("seconds", 1))
    return f"{max(seconds, 0) / length:.0f} {unit}"
