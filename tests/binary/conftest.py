"""The programs that are tried."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.binary.installed import Installed, path_of


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the single file unpacks itself for all tests but those of just that."""
    directory = tmp_path_factory.mktemp("unpacked")
    yield directory
    shutil.rmtree(directory)  # it is large, and pytest keeps the directories of three runs


@pytest.fixture(params=["file", "wheel"])
def program(request: pytest.FixtureRequest, tmp_path: Path, unpacked: Path) -> Iterator[Installed]:
    """Each program that there is, in an empty directory tree; no daemon survives the test."""
    installed = Installed(path_of(request.param), tmp_path, unpacked)
    yield installed
    installed.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Installed]:
    """The single file, which unpacks itself where it does so unasked."""
    installed = Installed(path_of("file"), tmp_path, None)
    yield installed
    installed.close()
    shutil.rmtree(installed.user / ".local", ignore_errors=True)


@pytest.fixture
def settled(tmp_path: Path, unpacked: Path) -> Iterator[Installed]:
    """The single file, which other tests may have started already."""
    installed = Installed(path_of("file"), tmp_path, unpacked)
    yield installed
    installed.close()
