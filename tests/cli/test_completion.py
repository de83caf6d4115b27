"""Completion: what each shell is offered, in real shells; in silence, and without a password."""

import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rich_click as click
from click.shell_completion import CompletionItem, split_arg_string
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.completion import VARIABLE
from daemon.cli.main import COMMANDS, root
from daemon.cli.shells import SHELLS, Bash
from tests.support.commands import parameters
from tests.support.daemon_process import cli, environment
from tests.support.live import LiveDaemon
from tests.support.owner import add, discord
from tests.support.readme import README
from tests.support.services.discord import FakeDiscord
from tests.support.shells import SHELLS as TYPED
from tests.support.shells import TypedShell

NAMES = ("researcher", "reviewer", "night owl", "twin", "twin", "$(touch pwned)", "host:8080", "-f")


class Setting:
    """A daemon with agents and sessions, and an owner's shell with a ticket."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.live = LiveDaemon(home)
        self.directory = directory
        self.agents = [self.live.new_agent(name) for name in NAMES]
        for agent in self.agents[:2]:
            self.live.new_session(agent)
        self.ticket: str = self.live.owner.post("/v1/owner/login").json()["ticket"]
        self.live.owner.post("/v1/owner/verifiers", json={"name": "gateway"}).raise_for_status()
        with FakeDiscord() as service:
            add(self.live, discord(service, name="phone"))
        program = directory / "bin" / "daemon"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
        program.chmod(0o755)
        (directory / "bin" / "zzz-agent").symlink_to("/bin/true")
        self.env = environment(home, DAEMON_OWNER_TICKET=self.ticket)
        self.env["PATH"] = f"{program.parent}:{self.env['PATH']}"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """One for the module: nothing here changes it."""
    made = Setting(tmp_path_factory.mktemp("home") / "home", tmp_path_factory.mktemp("work"))
    yield made
    made.live.stop()


@pytest.fixture(params=TYPED)
def typed(request: pytest.FixtureRequest, setting: Setting, tmp_path: Path) -> Iterator[TypedShell]:
    """A shell that was set up as the README says."""
    (setup,) = re.findall(rf"^\| {request.param}\b[^|]*\| `([^`]+)` \|$", README.read_text(), re.MULTILINE)
    made = TypedShell(request.param, setup, setting.env, tmp_path)
    yield made
    made.close()


def test_tab_completes_in_the_real_shell(setting: Setting, typed: TypedShell, tmp_path: Path) -> None:
    (tmp_path / "notes.env").touch()
    (tmp_path / "workplace").mkdir()
    (tmp_path / "bin").symlink_to(setting.directory / "bin")
    for line, wanted in {
        "daemon session rev": "daemon session revoke ",
        "daemon session create --agent=rese": "daemon session create --agent=researcher ",
        "daemon agent show ni": r"daemon agent show night\ owl ",
        'daemon agent show "ni': 'daemon agent show "night owl" ',
        f"daemon --url {setting.live.url[:9]}": f"daemon --url {setting.live.url} ",
        f"daemon --url {setting.live.url} agent show rese": "agent show researcher ",
        "daemon --home=workp": "daemon --home=workplace/",
        "daemon session create --env-file not": "daemon session create --env-file notes.env ",
        "~/bin/daemon run --agent a -- zzz-": "run --agent a -- zzz-agent ",
    }.items():
        typed.complete(line, wanted)
    asked = "complete -C 'daemon session revoke '\n" if typed.shell == "fish" else "daemon session revoke 0\t\t\t"
    typed.type(asked, "researcher, READY")
    assert "Traceback" not in typed.screen


def test_a_name_is_never_code_for_the_shell(typed: TypedShell, tmp_path: Path) -> None:
    typed.type("daemon agent show \\$\t", "touch")
    typed.type(" --json\n", '"name":"$(touch pwned)"')
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def offered(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return what a shell is offered at the end of a line, each as its kind, its text and what it is."""

    def ask(line: str, shell: str = "zsh", **env: str) -> list[str]:
        for name in [name for name in os.environ if name.startswith("DAEMON_")]:
            monkeypatch.delenv(name)
        known = {"DAEMON_HOME": str(setting.live.root), "DAEMON_OWNER_TICKET": setting.ticket, "COMP_LINE": line}
        for name, value in {**known, **env}.items():
            monkeypatch.setenv(name, value)
        return SHELLS[shell](root, {}, "daemon", VARIABLE).complete().splitlines()

    return ask


Offered = Callable[..., list[str]]


def test_commands_and_options_say_what_they_do(offered: Offered) -> None:
    assert [line.split("\t")[1] for line in offered("daemon ")] == list(COMMANDS)
    assert offered("daemon agent sus") == ["plain\tsuspend\tRefuse all tokens of an AGENT until it is..."]
    assert offered("daemon session list --us") == ["plain\t--user\tOnly for this user."]


def test_agents_are_offered_by_name_and_by_id_where_the_name_does_not_do(setting: Setting, offered: Offered) -> None:
    by_name = dict(zip(NAMES, setting.agents, strict=True))
    twins = [one for one, name in zip(setting.agents, NAMES, strict=True) if name == "twin"]
    shown = offered("daemon agent show ")
    assert {f"plain\t{one}\ttwin" for one in twins} == {line for line in shown if "twin" in line}
    assert {line.split("\t")[1] for line in shown} == {*(set(NAMES) - {"twin", "-f"}), *twins, by_name["-f"]}
    assert offered(f"daemon agent show {by_name['researcher'][:-1]}") == [f"plain\t{by_name['researcher']}\tresearcher"]


def test_only_agents_that_the_command_can_be_for_are_offered(setting: Setting, offered: Offered) -> None:
    setting.live.owner.post(f"/v1/agents/{setting.agents[1]}/suspend").raise_for_status()
    try:
        assert offered("daemon agent activate ") == ["plain\treviewer"]
        assert "plain\treviewer" not in offered("daemon agent suspend ")
        assert "plain\treviewer" not in offered("daemon run --agent ")
        assert "plain\treviewer" in offered("daemon agent show ")
    finally:
        setting.live.owner.post(f"/v1/agents/{setting.agents[1]}/activate").raise_for_status()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("daemon agent list --status=ac", "active"),
        ("daemon channel log --event TOKEN_", "TOKEN_REUSED"),
        ("daemon channel add ntfy --event TOKEN_", "TOKEN_REUSED"),
        ("daemon events --type AUDIT_", "AUDIT_ARCHIVED"),
        ("daemon audit list --type AUDIT_", "AUDIT_ARCHIVED"),
        ("daemon logs --event daemon.rea", "daemon.ready"),
        ("daemon db export sess", "sessions"),
        ("daemon session create --process ", "claude"),
        ("daemon session create --env DAEMON_OWNER", "DAEMON_OWNER_TICKET"),
        ("daemon completion ba", "bash"),
        ("daemon channel test pho", "phone"),
        ("daemon verifier revoke ga", "gateway"),
    ],
)
def test_values_are_offered(offered: Offered, line: str, wanted: str) -> None:
    assert [one.split("\t")[1] for one in offered(line)] == [wanted]


def test_the_home_and_the_address_on_the_line_win_over_the_environment(setting: Setting, offered: Offered) -> None:
    elsewhere = {"DAEMON_HOME": "/nowhere", "DAEMON_URL": ""}
    assert offered("daemon agent show rese", **elsewhere) == []
    assert offered(f"daemon --home {setting.live.root} agent show rese", **elsewhere) == ["plain\tresearcher"]
    assert offered(f"daemon agent show --url={setting.live.url} rese", **elsewhere) == ["plain\tresearcher"]
    assert offered(f"daemon --home={setting.live.root} --url h", **elsewhere) == [f"plain\t{setting.live.url}"]


def test_without_a_ticket_nobody_is_asked_and_the_password_is_not_sent(setting: Setting, offered: Offered) -> None:
    wrong = {"DAEMON_OWNER_TICKET": "", "DAEMON_MASTER_PASSWORD": "a wrong one, to be seen"}
    assert offered("daemon agent show ", **wrong) == []
    assert offered("daemon session revoke ", DAEMON_OWNER_TICKET="wai_own_gone") == []
    assert setting.live.events(type="MASTER_AUTH_FAILED") == []


def test_a_shell_that_is_not_named_is_told_in_one_line(tmp_path: Path) -> None:
    for wrong in ((), ("tcsh",)):
        done = cli(tmp_path, "completion", *wrong)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "env",
    [
        {"DAEMON_HOME": "/nowhere"},
        {"DAEMON_URL": "http://127.0.0.1:1"},
        {"DAEMON_URL": "no address"},
        {"DAEMON_OWNER_TICKET": "wai_own_\x01é"},
        {"COMP_LINE": "daemon agent show \udcff"},
        {"COMP_LINE": ""},
        {"_DAEMON_COMPLETE": "tcsh_complete"},
        {"_DAEMON_COMPLETE": "bash_source"},
        {"COMP_TYPE": "x"},
    ],
)
def test_whatever_fails_is_silent(setting: Setting, env: dict[str, str]) -> None:
    asked = {"_DAEMON_COMPLETE": "bash_complete", "COMP_LINE": "daemon agent show ", "DAEMON_OWNER_TICKET": "wai_own_x"}
    done = cli(setting.live.root, **{**asked, **env})
    assert "rror" not in done.out + done.err
    assert done.err == ""


def test_nobody_waits_for_a_daemon_that_hangs(setting: Setting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"DAEMON_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "DAEMON_OWNER_TICKET": setting.ticket}
        asked = {"_DAEMON_COMPLETE": "bash_complete", "COMP_LINE": "daemon agent show "}
        done = cli(setting.live.root, timeout=20, **asked, **env)
    assert (done.out, done.err) == ("", "")


def unquoted(answer: list[str]) -> list[str]:
    """Return the words that bash would put on the line, as it would read them."""
    return [split_arg_string(line.removeprefix("plain\t"))[0] for line in answer]


@given(name=st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1), data=st.data())
def test_bash_reads_back_whatever_it_was_offered(name: str, data: st.DataObject) -> None:
    begun = data.draw(st.sampled_from([shlex.quote(name), ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_LINE", f"daemon agent show {begun}")
        patch.setenv("COMP_WORD", begun)
        shell = Bash(root, {}, "daemon", VARIABLE)
        words, incomplete = shell.get_completion_args()
        if begun:
            assert incomplete == name
        (line,) = shell.lines([CompletionItem(name)], words, incomplete)
    assert unquoted([line]) == [name]


def test_text_that_would_break_the_answer_is_not_offered() -> None:
    items = [CompletionItem("one\ttwo"), CompletionItem("one\ntwo"), CompletionItem("fine", help="in\ttwo\nlines")]
    for kind in SHELLS.values():
        lines = kind(root, {}, "daemon", VARIABLE).lines(items, [], "")
        assert [line.split("\t")[:2] for line in lines] == [["plain", "fine"]]


NEED_CANDIDATES = {
    "AGENT",
    "SESSION",
    "CHANNEL",
    "VERIFIER",
    "EVENT",
    "TABLE",
    "FILE",
    "DIR",
    "PATH",
    "SHELL",
    "COMMAND",
}


def test_no_parameter_that_names_something_is_without_candidates() -> None:
    without = []
    for where, param in parameters():
        if isinstance(param, click.Option) and param.is_flag:
            continue
        words = set(re.split("[^A-Z]+", f"{param.metavar or ''} {param.name or ''}".upper().replace("_", " ")))
        if "TEXT" in words:
            continue
        completed = param._custom_shell_complete is not None or isinstance(param.type, click.Choice | click.Path)
        if words & NEED_CANDIDATES and not completed:
            without.append(f"{where} {param.opts[-1]}")
    assert without == []
