"""The manual: a page for each command, with everything that it takes, which every reader of pages can read."""

import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import rich_click as click

import daemon
from daemon.cli import manual, roff
from daemon.cli.failure import EXIT_CODES
from daemon.cli.main import root
from daemon.client.finding import TOKEN, TOKEN_FILE
from daemon.config import SECRET_VARIABLES
from tests.support.commands import commands, parameters
from tests.support.daemon_process import cli, environment
from tests.support.readme import README
from tests.support.terminal import at_terminal

DAY, EPOCH = date(2026, 1, 31), "1769817600"
PAGES = {context.command_path: manual.page(context, DAY) for context in manual.walk(manual.top(root))}


def plain(source: str) -> str:
    """Return the source of a page as words, without fonts and escapes."""
    text = re.sub(r"\\f[BIR]|\\&|`", "", source).replace(r"\-", "-")
    for escape, character in {r"\(aq": "'", r"\(dq": '"', r"\(ti": "~", r"\[u2026]": "…", r"\e": "\\"}.items():
        text = text.replace(escape, character)
    return " ".join(text.split())


def needs(program: str) -> str:
    """Return a reader of pages; skip the test where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def shown(source: str) -> str:
    """Return what mandoc shows of a page's body, without the marks of fonts."""
    page = roff.header("x", "2026-01-31", "x", "x") + source
    command = [needs("mandoc"), "-T", "utf8"]
    return re.sub(".\x08", "", subprocess.run(command, input=page, capture_output=True, text=True, check=True).stdout)


def test_every_command_has_a_page_and_daemon_1_names_them_all() -> None:
    names = [f"daemon {path}".strip() for path, _ in commands()]
    assert list(PAGES) == names
    listed = plain(PAGES["daemon"])
    assert [name for name in names[1:] if f"{name.replace(' ', '-')}(1)" not in listed] == []


def test_every_option_and_argument_is_on_its_page_with_what_it_does() -> None:
    missing = []
    for path, param in parameters():
        page = plain(PAGES[f"daemon {path}".strip()])
        if isinstance(param, click.Option):
            wanted = [*param.opts, plain(param.help or "")]
        else:
            wanted = [plain(param.make_metavar(click.Context(click.Command("x"))))]
        missing += [f"{path}: {one}" for one in wanted if one not in page]
    assert missing == []


def test_what_the_program_returns_obeys_and_keeps_is_on_daemon_1() -> None:
    page = plain(PAGES["daemon"])
    assert [title for title in ("EXIT STATUS", "ENVIRONMENT", "FILES") if f".SH {title} " not in page] == []
    assert [code for code in EXIT_CODES if f".TP {code} " not in page] == []
    sources = [path.read_text() for path in Path(daemon.__file__).parent.rglob("*.py")]
    read = {name for text in sources for name in re.findall(r'environ(?:\.get\(|\[)"(DAEMON_[A-Z_]+)"', text)}
    assert "DAEMON_HOME" in read
    assert [name for name in (*read, TOKEN, TOKEN_FILE, *SECRET_VARIABLES) if f".TP {name} " not in page] == []
    assert [
        name for name in ("config.toml", "daemon.db", "seal.key", "backups", "daemon.sock") if name not in page
    ] == []


def test_the_exit_codes_of_the_readme_are_those_of_the_manual() -> None:
    told = README.read_text().partition("Exit codes: ")[2].partition("The password comes from")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", told)} == set(EXIT_CODES) | {128}


@pytest.mark.parametrize("reader", ["mandoc -T lint -W warning", "groff -man -ww -z -Tutf8"])
def test_readers_of_pages_find_no_fault(reader: str, tmp_path: Path) -> None:
    program, *options = reader.split()
    for name, page in PAGES.items():
        (tmp_path / f"{name}.1").write_text(page)
    command = [needs(program), *options, *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_text_is_shown_as_it_is() -> None:
    lines = [
        ".SH no section",
        "'quoted' and \"double\"",
        r"back\slash \fBbold\fR \n(xx",
        "--two -one ~/x ^ `y`",
        "… é 한 –",
    ]
    page = shown(roff.example(lines))
    assert [line for line in lines if line not in page] == []
    filled = shown(roff.section("S", roff.paragraphs(roff.prose(one) for one in lines)))
    assert [line for line in lines if line.replace("`", "") not in filled] == []


def test_pages_are_written_for_packages_and_are_the_same_each_time(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        done = cli(tmp_path, "man", "--output", str(tmp_path / name / "man1"), SOURCE_DATE_EPOCH=EPOCH)
        assert (done.code, done.out) == (0, f"{len(PAGES)} pages are in {tmp_path / name / 'man1'}\n")
        written.append({path.name: path.read_text() for path in (tmp_path / name / "man1").iterdir()})
    assert written[0] == written[1]
    assert written[0]["daemon-session-create.1"] == PAGES["daemon session create"]
    where = [needs("man"), "-w", "daemon-session-create"]
    env = os.environ | {"MANPATH": str(tmp_path / "one")}
    found = subprocess.run(where, env=env, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == str(tmp_path / "one" / "man1" / "daemon-session-create.1")


def test_a_page_is_shown_at_a_terminal_and_printed_elsewhere(tmp_path: Path) -> None:
    assert cli(tmp_path, "man", "agent", "add", SOURCE_DATE_EPOCH=EPOCH).out == PAGES["daemon agent add"]
    needs("man")
    env = environment(tmp_path, MANPAGER="cat", PAGER="cat", LANG="C.UTF-8", TERM="dumb")
    code, screen = at_terminal([sys.executable, "-m", "daemon", "man", "agent", "add"], env, {})
    assert code == 0
    assert "DAEMON-AGENT-ADD(1)" in screen
    assert ".TH" not in screen


@pytest.mark.parametrize("wrong", ["no-such", "session no-such", "status more", "agent --output x"])
def test_a_page_that_there_is_not_is_a_wrong_usage(tmp_path: Path, wrong: str) -> None:
    done = cli(tmp_path, "man", *wrong.split())
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
