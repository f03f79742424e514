"""``frostline inspect``: what is frozen in a model, where it came from, what it weighs."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.options import FrozenModeOption
from frostline.cli.pages import write_page
from frostline.cli.render import print_inspection, print_json, print_text


def inspect(
    model: options.ModelArgument = None,
    named: options.ModelOption = None,
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    num_labels: Annotated[int | None, typer.Option(min=1, help="Width of the head.")] = None,
    from_config: Annotated[
        bool, typer.Option("--from-config", help="Look at the configuration alone, where there are no weights.")
    ] = False,
    names: Annotated[bool, typer.Option("--names", help="Print each parameter's name and flag only.")] = False,
    html: options.Html = None,
    svg: options.Svg = None,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """See what would train: read from the configuration and the headers of the weights alone."""
    from frostline.evidence.inspect.inspection import inspect_model, open_skeleton
    from frostline.freezing.freeze import Freeze
    from frostline.plan.plan import Plan

    overrides = {} if num_labels is None else {"num_labels": num_labels}
    name = options.model_of(model, named)
    skeleton, origin = open_skeleton(name, from_config=from_config, trust_remote_code=trust_remote_code, **overrides)
    plan = Plan.named(freeze, train_only, frozen_mode.value)
    if plan is not None:
        Freeze(skeleton, plan)
    inspection = inspect_model(skeleton, origin)
    if html is not None:
        from frostline.runs.estimating import assumed_costs

        write_page(html, inspection.to_html(assumed_costs(skeleton, frozen_mode.value)))
    if svg is not None:
        write_page(svg, inspection.to_svg())
    if as_json:
        print_json(inspection.to_dict())
    elif names:
        print_text(*(f"{name} {flag}" for name, flag in inspection.names), whole=True)
    else:
        print_inspection(inspection)
        print_text(*(f"{what}: {file}" for what, file in (("Page", html), ("Picture", svg)) if file is not None))
