"""The command ``frostline``, and ``python -m frostline``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command and end the process with its exit status."""
    from frostline.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign must not end the run
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
