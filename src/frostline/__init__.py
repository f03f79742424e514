"""Frostline: see, control and prove which parts of a pretrained model train.

Importing this package is light: torch and transformers load when something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostline.anatomy.modelmap import ModelMap as ModelMap
    from frostline.checkpoints.delta.delta import load_delta as load_delta
    from frostline.checkpoints.delta.delta import save_delta as save_delta
    from frostline.engine.selfcheck.selfcheck import selfcheck as selfcheck
    from frostline.errors import DriftError as DriftError
    from frostline.evidence.checks.run import check as check
    from frostline.evidence.diff.diff import diff as diff
    from frostline.evidence.explain.explain import explain as explain
    from frostline.evidence.inspect.inspection import inspect as inspect
    from frostline.evidence.probe.probe import probe as probe
    from frostline.evidence.proof.fingerprint import fingerprint as fingerprint
    from frostline.evidence.proof.proof import verify as verify
    from frostline.evidence.proof.run_proof import verify_run as verify_run
    from frostline.freezing.freeze import freeze as freeze
    from frostline.freezing.freeze import train_only as train_only
    from frostline.plan.phase import Phase as Phase
    from frostline.plan.plan import Plan as Plan
    from frostline.plan.recipe import select as select
    from frostline.runs.estimating import estimate as estimate
    from frostline.runs.features import features as features
    from frostline.runs.sweep.sweep import sweep as sweep
    from frostline.training.arguments import TrainingArguments as TrainingArguments
    from frostline.training.callback import FreezeCallback as FreezeCallback
    from frostline.training.fast import fast as fast
    from frostline.training.lightning import LightningCallback as LightningCallback
    from frostline.training.trainer import Trainer as Trainer

# The public names and the modules that they live in.
_HOMES = {
    "DriftError": "frostline.errors",
    "FreezeCallback": "frostline.training.callback",
    "LightningCallback": "frostline.training.lightning",
    "ModelMap": "frostline.anatomy.modelmap",
    "Phase": "frostline.plan.phase",
    "Plan": "frostline.plan.plan",
    "Trainer": "frostline.training.trainer",
    "TrainingArguments": "frostline.training.arguments",
    "check": "frostline.evidence.checks.run",
    "diff": "frostline.evidence.diff.diff",
    "estimate": "frostline.runs.estimating",
    "explain": "frostline.evidence.explain.explain",
    "fast": "frostline.training.fast",
    "features": "frostline.runs.features",
    "fingerprint": "frostline.evidence.proof.fingerprint",
    "freeze": "frostline.freezing.freeze",
    "inspect": "frostline.evidence.inspect.inspection",
    "probe": "frostline.evidence.probe.probe",
    "load_delta": "frostline.checkpoints.delta.delta",
    "save_delta": "frostline.checkpoints.delta.delta",
    "select": "frostline.plan.recipe",
    "selfcheck": "frostline.engine.selfcheck.selfcheck",
    "sweep": "frostline.runs.sweep.sweep",
    "train_only": "frostline.freezing.freeze",
    "verify": "frostline.evidence.proof.proof",
    "verify_run": "frostline.evidence.proof.run_proof",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'frostline' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
