"""Run the tests on other versions of the libraries than those in constraints.txt.

Usage: ``python -m tests.versions [--quick] [SET …]``. A set is a file beside this one: the versions that are others.
Each gets a virtual environment of its own under build/versions, which is kept; torch is the same in all of them.
The last lines are rows for docs/compatibility.md. Only the standard library is needed to start it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_BUILD = _ROOT / "build" / "versions"
_SETS = ("oldest", "middle", "newest")
_LIBRARIES = ("transformers", "datasets", "accelerate", "peft", "safetensors", "scikit-learn", "typer", "rich")
# What other versions can break and one version is enough for.
_NOT_IN_CORE = ("zoo", "benchmarks", "docs", "versions")
# A look at each part: what loads and places weights, what reads data, what the engine hooks into, one run of each kind.
QUICK = (
    "tests/compat",
    "tests/anatomy/test_origin.py",
    "tests/checkpoints/test_tensor_files.py",
    "tests/data/test_labels.py",
    "tests/data/test_table_files.py",
    "tests/engine/packing/test_packing.py",
    "tests/engine/test_selection.py",
    "tests/engine/kernels/test_embedding_gradients.py",
    "tests/evidence/checks/test_checkpointing.py",
    "tests/evidence/checks/test_distributed.py",
    "tests/training/test_trainer.py",
    "tests/training/test_drop_in.py",
    "tests/training/test_renamed.py",
)


def main() -> int:
    """Run each set that is asked for.

    Returns:
        The exit status: 0 where all passed.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a look at each part, in a minute or two")
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(_SETS))
    given = parser.parse_args()
    unknown = sorted(set(given.sets) - set(_SETS))
    if unknown:
        parser.error(f"there is no set {unknown[0]!r}: choose of {', '.join(_SETS)}")
    rows = []
    for name in given.sets or _SETS:
        python = _environment(name)
        parts = {"core": QUICK} if given.quick else {"core": _core(), "zoo": ("tests/zoo",)}
        said = {part: _tests(python, paths) for part, paths in parts.items()} | {"demo": _demo(python)}
        rows.append((name, _versions(python), said))
    for name, versions, said in rows:
        print("|", name, "|", versions, "|", " | ".join(said.values()), "|")
    return int(any("failed" in text or "error" in text for *_, said in rows for text in said.values()))


def _environment(name: str) -> Path:
    """Make the virtual environment of a set, or take it as it is; give its Python."""
    pins = (_ROOT / "tests" / "versions" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    own = {line.partition("==")[0] for line in pins}
    rest = (_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    text = "\n".join([*pins, *(line for line in rest if line.partition("==")[0] not in own)]) + "\n"
    folder, stamp = _BUILD / name, _BUILD / name / ".setup-done"
    digest = hashlib.sha256((text + (_ROOT / "pyproject.toml").read_text(encoding="utf-8")).encode()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    print(f"{name}: making {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    constraints = _BUILD / f"{name}.txt"
    constraints.write_text(text, encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    subprocess.run([*pip, "-e", ".[demo,test]"], cwd=_ROOT, check=True)
    stamp.write_text(digest, encoding="utf-8")
    return python


def _core() -> tuple[str, ...]:
    folder = _ROOT / "tests"
    tests = [path for path in folder.iterdir() if path.is_dir() or path.name.startswith("test_")]
    return tuple(f"tests/{path.name}" for path in sorted(tests) if path.name not in {*_NOT_IN_CORE, "__pycache__"})


def _tests(python: Path, paths: tuple[str, ...]) -> str:
    """Run tests; give their numbers, as pytest says them."""
    command = [str(python), "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout[-6000:], flush=True)
    said = re.findall(r"\d+ (?:failed|passed|errors?|skipped)", done.stdout.rstrip().rpartition("\n")[2])
    return ", ".join(said) or f"failed with status {done.returncode}"


def _demo(python: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-m", "frostline", "demo", "--out", str(Path(folder) / "demo")]
        done = subprocess.run(command, cwd=_ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False)
    return "runs" if done.returncode == 0 else "failed"


def _versions(python: Path) -> str:
    code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {_LIBRARIES}), sep=', ')"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
