"""The command ``frostline``, and ``python -m frostline``."""

from __future__ import annotations

import io
import sys

from frostline.cli.sigint import INTERRUPTED, Patient


def main() -> None:
    """Run the command and end the process with its exit status."""
    Patient().install()
    try:
        from frostline.cli.app import run

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that cannot show a sign must not end the run
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began, or when it had ended
        status = INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
