"""``frostline schedule``: a schedule by name, made for a model, as TOML to edit."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.render import print_json, print_text


def schedule(
    preset: Annotated[str, typer.Option(metavar="NAME", help="Which one; an unknown name lists them all.")],
    model: options.ModelArgument = None,
    named: options.ModelOption = None,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Print a schedule by name, made for a model: what trains phase by phase, to edit and to train with."""
    from frostline.evidence.inspect.inspection import open_skeleton
    from frostline.plan import presets
    from frostline.plan.schedule_file import schedule_text

    skeleton, _ = open_skeleton(options.model_of(model, named), from_config=False, trust_remote_code=trust_remote_code)
    made = presets.preset(skeleton, preset)
    if as_json:
        print_json({"preset": preset, "source": presets.PRESETS[preset].source} | made.to_dict())
        return
    about = presets.PRESETS[preset]
    head = f"{preset}: {about.what} ({about.source})."
    print_text(schedule_text(made, head, "Train with it: frostline train --schedule FILE").rstrip("\n"), whole=True)
