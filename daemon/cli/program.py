"""The command that starts this very program again, for whoever shall start it later."""

import os
import sys
from pathlib import Path


def program() -> list[str]:
    """Return it with absolute paths: the script or the single file that was called, else the interpreter's module."""
    called = Path(sys.argv[0])
    if called.name != "__main__.py" and called.is_file() and os.access(called, os.X_OK):
        return [os.path.abspath(called)]  # noqa: PTH100 (pathlib would follow the link that survives an upgrade)
    # -P: a directory `daemon` where it will be started is not the module.
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-P", "-m", "daemon"]
