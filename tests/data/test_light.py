"""Importing stays light."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
import frostline.data
from frostline.data import examples, labels, sources, tokenising
heavy = {"torch", "transformers", "datasets", "pyarrow", "pandas", "numpy"} & set(sys.modules)
sys.exit(str(sorted(heavy)) if heavy else 0)
"""


def test_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
