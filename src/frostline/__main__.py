"""The command ``frostline``, and ``python -m frostline``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and end the process with its exit status."""
    from frostline.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
