"""`daemon run`: a session for as long as a command runs."""

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base, token_directory
from daemon.cli.candidates import agents
from daemon.cli.client import Client
from daemon.cli.credentials import Owner
from daemon.cli.failure import NOT_EXECUTABLE, NOT_FOUND, RUN_FAILED, Failure
from daemon.cli.lookup import agent_id, agent_id_or_none
from daemon.cli.output import note
from daemon.cli.parameters import DURATION
from daemon.cli.runner import Runner, myself
from daemon.cli.shells import program
from daemon.domain.views import AgentView, CreatedSession, SessionDetail, SessionSummary

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT)
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to the child itself; from elsewhere they are forwarded."""


@click.command(cls=base.Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--agent", required=True, metavar="AGENT", shell_complete=agents("ACTIVE"), help="Whose session it is (id or name)."
)
@click.option("--create", is_flag=True, help="Register the agent if there is none of that name.")
@click.option("--ttl", type=DURATION, help="How long the session lasts until it is renewed.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=program)
def run(agent: str, create: bool, ttl: int | None, command: tuple[str, ...]) -> int:
    """Run COMMAND with a session of its own, which ends with it; the exit code is COMMAND's.

    COMMAND finds a token that is always current in the file $DAEMON_TOKEN_FILE, and the daemon at $DAEMON_URL.
    """
    # Imported here: the client takes longer than most commands run.
    from daemon.cli import run_session  # noqa: PLC0415

    try:
        client = Client(sender="run", owner=Owner())
        whose = _agent(client, agent, create=create)
        _tidy_up(client, whose)
        made = _session(client, whose, ttl)
    except Failure as failure:
        raise Failure(str(failure), RUN_FAILED) from None
    ended = False
    try:
        with token_directory.handed_out(made.id, made.token) as file, run_session.renewed(file) as session:
            try:
                return _run(command, run_session.environment(client, made, file))
            finally:
                ended = run_session.end(session)
    finally:
        if not ended:
            _revoke(client, made.id)


def _agent(client: Client, ref: str, *, create: bool) -> str:
    if not create:
        return agent_id(client, ref)
    known = agent_id_or_none(client, ref)
    return known or client.call("POST", "/v1/agents", {"name": ref}).read(AgentView).id


class _Metadata(msgspec.Struct):
    run: Runner | None = None


def _tidy_up(client: Client, whose: str) -> None:
    """Revoke the sessions of runs whose process is gone: `kill -9` gave them no chance to do it."""
    for page in client.pages("/v1/sessions", agentId=whose, status="ACTIVE"):
        for summary in page.read_list(SessionSummary):
            detail = client.call("GET", f"/v1/sessions/{summary.id}").read(SessionDetail)
            if detail.created_by == "run" and _is_left_behind(detail.metadata):
                _revoke(client, detail.id)
                token_directory.remove(detail.id)


def _is_left_behind(metadata: Any) -> bool:
    try:
        runner = msgspec.json.decode(metadata, type=_Metadata).run
    except msgspec.MsgspecError:
        return False
    return runner is not None and runner.is_gone()


def _session(client: Client, whose: str, ttl: int | None) -> CreatedSession:
    body: dict[str, Any] = {"agentId": whose, "metadata": {"run": myself()}}
    if ttl is not None:
        body["ttl"] = ttl
    return client.call("POST", "/v1/sessions", body).read(CreatedSession)


def _run(command: tuple[str, ...], environment: dict[str, str]) -> int:
    """Run the command in our own process group, so that the terminal stays its terminal."""
    waiting: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if number in _FROM_TERMINAL and _is_foreground():
            return
        if child is None:
            waiting.append(number)
        else:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (*_FORWARDED, *_FROM_TERMINAL)}
    try:
        child = subprocess.Popen(command, env=environment)  # noqa: S603 (the command that was asked for)
        for number in waiting:
            child.send_signal(number)
        code = child.wait()
    except FileNotFoundError:
        raise Failure(f"{command[0]}: command not found", NOT_FOUND) from None
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _is_foreground() -> bool:
    """Return whether a terminal's keys reach our process group, and so the child."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def _revoke(client: Client, session_id: str) -> None:
    try:
        client.call("DELETE", f"/v1/sessions/{session_id}")
    except Failure as failure:
        note(f"session {session_id} could not be revoked: {failure}")
