"""The public names, and that importing them stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import frostline

PUBLIC = [
    "DriftError",
    "FreezeCallback",
    "LightningCallback",
    "ModelMap",
    "Phase",
    "Plan",
    "Trainer",
    "TrainingArguments",
    "check",
    "diff",
    "estimate",
    "explain",
    "fast",
    "features",
    "fingerprint",
    "freeze",
    "inspect",
    "load_delta",
    "probe",
    "save_delta",
    "select",
    "selfcheck",
    "sweep",
    "train_only",
    "verify",
    "verify_run",
]

HEAVY = ("torch", "transformers", "datasets", "accelerate", "sklearn", "numpy", "pandas", "pyarrow")

_LOADED = f"""
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY})), sep=",", file=sys.stderr)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{_LOADED}"], capture_output=True, text=True, check=False
    )


def test_the_list_of_names() -> None:
    assert sorted(frostline.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(frostline))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_resolves(name: str) -> None:
    if name == "LightningCallback":
        pytest.importorskip("lightning")
    value = getattr(frostline, name)
    assert callable(value)
    assert value.__name__ == name
    assert value.__module__.startswith("frostline.")
    assert value.__doc__


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'frostline' has no attribute 'thaw'"):
        frostline.thaw  # noqa: B018


def test_importing_the_library_loads_nothing_heavy() -> None:
    done = run("import frostline\nassert 'frostline' in sys.modules")
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_the_guard_can_fail() -> None:
    assert run("import numpy").stderr.strip() == "numpy"


def test_the_command_s_help_loads_nothing_heavy() -> None:
    done = run("from frostline.cli.app import run\nassert run(['--help']) == 0")
    assert done.returncode == 0, done.stderr
    assert "Usage: frostline" in done.stdout
    assert done.stderr.strip() == ""


def test_the_command_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "frostline", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Usage: frostline" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & set(HEAVY)
