"""`python .ci/packing/pack.py WORK FILE`: put the installed program together, and make one file of it."""

import gzip
import hashlib
import importlib.metadata
import io
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from entry import MANIFEST

HERE = Path(__file__).parent
TOOLS = {"altgraph", "pip", "pyinstaller", "pyinstaller-hooks-contrib", "setuptools"}
"""What makes the file and is not in it."""
LICENCES = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)
DATA = "Library/Application Support" if sys.platform == "darwin" else ".local/share"


def main(work: Path, file: Path) -> None:
    """Build the file.

    Args:
        work: a directory that is not there yet.
        file: where it belongs.
    """
    program = put_together(work)
    put_multipart_in_place(program)
    copy_licences(program / "licences")
    manifest = list_files(program)
    (program / MANIFEST).write_bytes(manifest)
    sizes = [path.stat().st_size for path in files(program)]
    launcher = launched(
        id=hashlib.sha256(manifest).hexdigest(),
        version=importlib.metadata.version("agent-session-daemon"),
        built_for=built_for(program),
        megabytes=str(round(sum(sizes) / 1e6)),
        data=DATA,
    )
    whole = launcher + packed(program)
    put(file, whole)
    print(f"{file}: {len(whole) / 1e6:.0f} MB, unpacked {sum(sizes) / 1e6:.0f} MB in {len(sizes):,} files")
    print(f"SHA-256 {hashlib.sha256(whole).hexdigest()}")


def put(file: Path, content: bytes) -> None:
    """Make an executable file, in the place of an older one in one step: it may be in use."""
    file.parent.mkdir(exist_ok=True)
    written = file.with_name(f".{file.name}.{os.getpid()}")
    written.write_bytes(content)
    written.chmod(0o755)
    written.replace(file)


def put_together(work: Path) -> Path:
    """Let PyInstaller collect the program and everything it needs in a directory, and return that.

    It works elsewhere: in a checkout it would take the source that lies there for the installed package.
    """
    work.mkdir()
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", str(HERE / "daemon.spec")]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYINSTALLER_CONFIG_DIR": str(work / "cache")}
    done = subprocess.run(  # noqa: S603 (of this file)
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nerror: PyInstaller failed (exit code {done.returncode})")
    return work / "dist" / "daemon"


def put_multipart_in_place(program: Path) -> None:
    """Put Litestar's `multipart` where python-multipart, of the MCP SDK, has its stand-in for it.

    Where both are installed the stand-in looks for the other's source and runs that. Here there are no sources.
    """
    shutil.rmtree(program / "_internal" / "multipart", ignore_errors=True)
    py_compile.compile(
        str(importlib.metadata.distribution("multipart").locate_file("multipart.py")),
        cfile=str(program / "_internal" / "multipart.pyc"),
        dfile="multipart.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def copy_licences(directory: Path) -> None:
    """Copy the licences of what is in the file, as most of them ask for."""
    directory.mkdir()
    for package in importlib.metadata.distributions():
        for path in package.files or [] if package.name not in TOOLS else []:
            if LICENCES.search(path.name) and ".dist-info" in path.parts[0]:
                shutil.copy(str(package.locate_file(path)), directory / f"{package.name}-{path.name}")
    python = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if python.exists():
        shutil.copy(python, directory / "python-LICENSE.txt")


def files(program: Path) -> Iterator[Path]:
    """Return every file in the order of its name."""
    return (path for path in sorted(program.rglob("*")) if path.is_file())


def list_files(program: Path) -> bytes:
    """Return the manifest."""
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(program)}\n" for path in files(program)
    )
    return "".join(lines).encode()


def packed(program: Path) -> bytes:
    """Return the directory as a gzipped tar archive, the same for the same files."""
    made = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=made, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted(program.iterdir()):
            archive.add(path, path.name, filter=private)
    return made.getvalue()


def private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without owner and time, for its owner alone."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode &= 0o700
    return member


def launched(**known: str) -> bytes:
    """Return the launcher, which knows at which byte the archive begins."""
    text = re.sub("@([a-z_]+)@", lambda found: known.get(found[1], found[0]), (HERE / "launcher.sh").read_text())
    length = len(text.encode()) - len("@start@")
    start = next(start for start in range(length, length + 10) if start == length + len(str(start)) + 1)
    return text.replace("@start@", str(start)).encode()


def built_for(program: Path) -> str:
    """Return the system that the file is for, on Linux with the newest glibc that anything in it asks for."""
    system = f"{platform.system()} on {platform.machine()}"
    if sys.platform != "linux":
        return system
    found: set[tuple[int, ...]] = set()
    for path in files(program):
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        command = ["objdump", "-p", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 (of this file)
        found |= {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", said)}
    return f"{system} with glibc {'.'.join(map(str, max(found)))} or newer"


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
