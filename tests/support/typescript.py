"""The TypeScript compiler and Node.js, where they are installed."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.postgres import unavailable

_OLDEST_NODE = 18
"""The first one with `fetch`."""


def require() -> Path:
    """Return the `node_modules` with the compiler and the types of Node.js; skip the test where they are missing.

    The directory with the executable `tsc` is named by DAEMON_TEST_TYPESCRIPT, or `tsc` is in the PATH. If
    DAEMON_TEST_REQUIRE names `typescript`, it may not be missing.
    """
    found = _found()
    if isinstance(found, str):
        unavailable("typescript", found)
    return Path(found)


@functools.cache
def _found() -> Path | str:
    """Return where it is, or why there is none."""
    node = shutil.which("node")
    if node is None:
        return "there is no Node.js"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", version)
    if match is None or int(match[1]) < _OLDEST_NODE:
        return f"Node.js is too old, or does not run: {version.strip()}"
    named = os.environ.get("DAEMON_TEST_TYPESCRIPT")
    compiler = shutil.which("tsc", path=named)
    if compiler is None:
        return f"there is no TypeScript: no `tsc` in {named or 'the PATH'} (DAEMON_TEST_TYPESCRIPT)"
    modules = Path(compiler).absolute().parent.parent
    return modules if (modules / "@types" / "node").is_dir() else f"there is no @types/node in {modules}"
