"""How this program came onto the machine, and the commands that bring its next version there. They are not run here."""

import importlib.util
import shlex
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

import daemon
from daemon.cli.program import program

NAME = "agent-session-daemon"
"""The distribution's name on a package index."""
NEW_FILE = "NEW_FILE"
"""Stands for a file that the owner has fetched."""

Kind = Literal["binary", "venv", "pipx", "uv-tool", "package", "source"]
_NOT_FOR_USE = {"binary", "dev", "test"}
"""Extras for those who build it."""


class Provenance(msgspec.Struct, frozen=True):
    """How the program was installed.

    Args:
        kind: a single file, an environment of pip or uv, one of pipx or of `uv tool`, a package of the system's own
            package manager, or a checkout that was never installed.
        path: the file, the environment, or the checkout.
        commands: what brings the next version, in order; none where only the package manager knows.
    """

    kind: Kind
    path: str
    commands: list[str]


class _DirectUrl(msgspec.Struct):
    """Where the program came from, if not from an index (packaging.python.org, `direct_url.json`)."""

    url: str
    dir_info: dict[str, Any] | None = None
    vcs_info: dict[str, Any] | None = None


def provenance() -> Provenance:
    """Return how this very program was installed."""
    if getattr(sys, "frozen", False):
        file = program()[0]
        return Provenance("binary", file, [_line("install", "-m", "755", NEW_FILE, file)])
    found = _distribution()
    if found is None:
        root = _package().parent
        return Provenance("source", str(root), _pull(root))
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").is_file():
        return Provenance("uv-tool", str(prefix), _of_tool(found, ["uv", "tool"]))
    if (prefix / "pipx_metadata.json").is_file():
        return Provenance("pipx", str(prefix), _of_tool(found, ["pipx"]))
    installer = (found.read_text("INSTALLER") or "").strip()
    if sys.prefix == sys.base_prefix and installer not in {"pip", "uv"}:
        return Provenance("package", str(_package()), [])
    return Provenance("venv", str(prefix), _of_pip(found))


def _package() -> Path:
    return Path(daemon.__file__).resolve().parent


def _distribution() -> Distribution | None:
    """Return what was installed as this package; another one may be installed, and this one only be on the path."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        return None
    source = _directory(_origin(found))
    here = _package()
    return found if here in {Path(str(found.locate_file("daemon"))).resolve(), source and source / "daemon"} else None


def _origin(found: Distribution) -> _DirectUrl | None:
    text = found.read_text("direct_url.json")
    return msgspec.json.decode(text, type=_DirectUrl) if text else None


def _directory(origin: _DirectUrl | None) -> Path | None:
    if origin is None or origin.dir_info is None:
        return None
    return Path(unquote(urlsplit(origin.url).path)).resolve()


def _of_tool(found: Distribution, tool: list[str]) -> list[str]:
    origin = _origin(found)
    if origin is None or origin.vcs_info is not None:
        return [_line(*tool, "upgrade", NAME)]
    directory = _directory(origin)
    spec = _with_extras(found, NEW_FILE if directory is None else str(directory))
    return [*_pull(directory), _line(*tool, "install", "--force", spec)]


def _of_pip(found: Distribution) -> list[str]:
    origin = _origin(found)
    pip = [sys.executable, "-m", "pip", "install"]
    if importlib.util.find_spec("pip") is None:
        pip = ["uv", "pip", "install", "--python", sys.executable]
    directory = _directory(origin)
    if directory is not None and origin is not None:
        how = ["--editable"] if (origin.dir_info or {}).get("editable") else []
        return [*_pull(directory), _line(*pip, *how, _with_extras(found, str(directory)))]
    if origin is None:
        spec = _with_extras(found, NAME)
    elif origin.vcs_info is not None:
        spec = f"{_with_extras(found, NAME)} @ {origin.vcs_info.get('vcs')}+{origin.url}"
    else:
        spec = _with_extras(found, NEW_FILE)
    return [_line(*pip, "--upgrade", spec)]


def _pull(directory: Path | None) -> list[str]:
    return [_line("git", "-C", str(directory), "pull")] if directory and (directory / ".git").exists() else []


def _with_extras(found: Distribution, spec: str) -> str:
    """Return a requirement with the extras that are installed: without them theirs would stay as they are."""
    extras = [extra for extra in found.metadata.get_all("Provides-Extra") or [] if _is_installed(found, extra)]
    return f"{spec}[{','.join(extras)}]" if extras else spec


def _is_installed(found: Distribution, extra: str) -> bool:
    marked = [line for line in found.requires or [] if f"extra == '{extra}'" in line.replace('"', "'")]
    return extra not in _NOT_FOR_USE and bool(marked) and all(map(_is_there, marked))


def _is_there(requirement: str) -> bool:
    name = "".join(character if character.isalnum() or character in "-_." else " " for character in requirement)
    try:
        distribution(name.split()[0])
    except PackageNotFoundError:
        return False
    return True


def _line(*words: str) -> str:
    return " ".join(word if word.startswith(NEW_FILE) else shlex.quote(word) for word in words)
