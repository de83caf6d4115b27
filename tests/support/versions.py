"""Another version of the program, beside this one: its code is this one's, its version and its files are its own."""

import subprocess
import sys
from pathlib import Path

import daemon
from tests.support.daemon_process import PASSWORD, REPOSITORY, Ended, environment

NEXT = "0.9.0"
CHANGELOG = f"""# Changelog

## [{NEXT}] - 2026-12-24

### Added
- Something that this version does not have.

## [{daemon.__version__}] - 2026-12-01

### Added
- What there was.
"""


class NextVersion:
    """A checkout of the next version, which brings one more migration.

    Args:
        root: where it is made.
    """

    name = "next.sql"

    def __init__(self, root: Path) -> None:
        self.root = root
        package = root / "daemon"
        package.mkdir(parents=True)
        for found in (REPOSITORY / "daemon").iterdir():
            if found.name not in {"__init__.py", "__pycache__"}:
                (package / found.name).symlink_to(found)
        (package / "__init__.py").write_text(f'__version__ = "{NEXT}"\n')
        for name in ("schema.sql", "config.example.toml"):
            (root / name).symlink_to(REPOSITORY / name)
        (root / "CHANGELOG.md").write_text(CHANGELOG)
        for folder in ("migrations", "migrations/postgres"):
            (root / folder).mkdir()
            files = [path for path in (REPOSITORY / folder).iterdir() if path.suffix == ".sql"]
            for file in files:
                (root / folder / file.name).symlink_to(file)
            self.migration = f"{len(files) + 1:04d}_{self.name}"
            (root / folder / self.migration).write_text("CREATE TABLE of_the_next_version (id INTEGER);\n")

    def cli(self, home: Path, *arguments: str, **env: str) -> Ended:
        """Run a command of this version against a home; the password is in the environment."""
        return run(self.root, home, *arguments, **env)


def run(root: Path, home: Path, *arguments: str, **env: str) -> Ended:
    """Run a command of the checkout at `root`."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=environment(home, **{"DAEMON_MASTER_PASSWORD": PASSWORD, "PYTHONPATH": str(root), **env}),
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
