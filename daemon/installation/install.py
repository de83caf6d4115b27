"""Putting the service's file in place, taking it away, and looking at it."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from daemon import files
from daemon.installation.launchd import Launchd
from daemon.installation.manager import Manager, State
from daemon.installation.seal import Whose, whose
from daemon.installation.service import Service, ServiceError
from daemon.installation.systemd import Systemd

_LARGEST = 1 << 20


class Found(msgspec.Struct, frozen=True):
    """What is where the service's file would be.

    Args:
        text: its content; None: there is nothing.
        whose: whether it is ours, and as we wrote it.
        home: of the daemon that it starts, where it is ours.
        current: whether it is what would be written now; the PATH that was written then counts as right.
    """

    text: str | None
    whose: Whose
    home: Path | None = None
    current: bool = False


def manager_of(environ: Mapping[str, str], kind: str | None = None) -> Manager:
    """Return a service manager of this user: the one that is asked for, else that of the system."""
    home = Path(environ.get("HOME") or Path.home())
    if (kind or ("launchd" if sys.platform == "darwin" else "systemd")) == "launchd":
        return Launchd(home)
    chosen = environ.get("XDG_CONFIG_HOME", "")
    return Systemd(Path(chosen) if chosen.startswith("/") else home / ".config")


def look(manager: Manager, service: Service | None) -> Found:
    """Return what is where the service's file would be.

    Args:
        manager: it would be told.
        service: would be written there; None: nothing would, and whatever is there is not current.
    """
    if not manager.file.is_symlink() and not manager.file.exists():
        return Found(None, "foreign")
    text = _read(manager.file)
    kind = whose(text)
    if kind != "ours":
        return Found(text, kind)
    said = manager.read(text)
    home = Path(said.command[said.command.index("--home") + 1])
    current = service is not None and manager.render(msgspec.structs.replace(service, path=said.path)) == text
    return Found(text, kind, home, current)


def _read(file: Path) -> str:
    """Return the content of a file; nothing of what is no text file of a sensible size, or cannot be read."""
    if file.is_symlink() or not file.is_file():
        return ""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(_LARGEST).decode(errors="surrogateescape")
    return ""


def write(manager: Manager, service: Service, *, force: bool) -> bool:
    """Write the service's file, whole or not at all; return whether there was anything to write.

    Args:
        manager: it is told afterwards, by the caller.
        service: is written.
        force: also over a file that is not ours, was edited, or is of another home.

    Raises:
        ServiceError: the file is not ours to replace.
        OSError: it cannot be written.
    """
    found, text = look(manager, service), manager.render(service)
    if found.text == text:
        return False
    if found.text is not None and not force:
        _refuse(manager, service.home, found, "to replace it: daemon service install --force")
    manager.file.parent.mkdir(parents=True, exist_ok=True)
    with files.partial(manager.file) as made:
        made.write_text(text, encoding="utf-8")
        made.chmod(0o644)
        files.sync(made)
        made.replace(manager.file)
    files.sync(manager.file.parent)
    return True


def remove(manager: Manager, home: Path, *, force: bool) -> bool:
    """End the service and remove its file; return whether there was one.

    Args:
        manager: of the service.
        home: of the daemon that it starts.
        force: also if the file is not ours, was edited, or is of another home.

    Raises:
        ServiceError: the file is not ours to remove, or the manager cannot be had.
        OSError: it cannot be removed.
    """
    found = look(manager, None)
    if found.text is None:
        return False
    if not force:
        _refuse(manager, home, found, "to remove it: daemon service uninstall --force")
    manager.check()
    manager.disable()
    manager.file.unlink()
    manager.forget()
    return True


def _refuse(manager: Manager, home: Path, found: Found, cure: str) -> None:
    """Leave alone what is not ours, or not this home's."""
    if found.whose == "foreign":
        raise ServiceError(f"{manager.file} was not written by daemon service install", cure)
    if found.whose == "edited":
        raise ServiceError(f"{manager.file} was edited since it was installed", cure)
    if found.home != home:
        raise ServiceError(f"{manager.file} is the service of the home {found.home}", cure)


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """How the service does, for people and programs; None is what the manager could not be asked for.

    Args:
        manager: `systemd` or `launchd`.
        service: its name there.
        file: where its file is, or would be.
        installed: whether there is one.
        edited: whether somebody else has written or changed it.
        current: whether it is what `daemon service print` says; the PATH of its installation counts as right.
        home: of its daemon.
        enabled: whether it starts by itself.
        active: whether it runs.
        state: the manager's word for what it does.
        pid: of its main process.
        lingers: whether it goes on when its owner logs out.
    """

    manager: str
    service: str
    file: str
    installed: bool
    edited: bool
    current: bool
    home: str | None
    enabled: bool | None
    active: bool | None
    state: str | None
    pid: int | None
    lingers: bool | None


def status(manager: Manager, service: Service | None) -> tuple[Status, ServiceError | None]:
    """Return how the service does, and why the manager could not be asked if it could not.

    Args:
        manager: of the service.
        service: as it would be written now; None where nothing would be.
    """
    found, state, trouble = look(manager, service), State(False, False, "", None), None
    try:
        state = manager.state()
    except ServiceError as error:
        trouble = error
    return (
        Status(
            manager=manager.kind,
            service=manager.service,
            file=str(manager.file),
            installed=found.text is not None,
            edited=found.text is not None and found.whose != "ours",
            current=found.current,
            home=str(found.home) if found.home else None,
            enabled=None if trouble else state.enabled,
            active=None if trouble else state.active,
            state=None if trouble else state.word,
            pid=state.pid,
            lingers=None if trouble else manager.lingers(),
        ),
        trouble,
    )
