"""`daemon session send`: a message to a session's process, and what it says to it."""

import sys

import rich_click as click

from daemon.cli import base, sources
from daemon.cli.client import Client
from daemon.cli.failure import FAILED, OK, USAGE, Failure
from daemon.cli.lookup import session_id
from daemon.cli.output import json_out, note
from daemon.cli.process_output import Line
from daemon.cli.session_view import session_argument
from daemon.cli.speaker import Speaker, aside
from daemon.cli.watching import Ended, Event, Item, Watch, post
from daemon.domain.process_views import SentMessage

_LONGEST = 1 << 20
"""Bytes: the API takes no larger body."""
_OF_TURNS = frozenset({"SESSION_STATE_CHANGED", "SESSION_STARTED"})
_ENDED = {"failed": "turn {} has failed", "interrupted": "turn {} was interrupted"}


@click.command(cls=base.Command)
@session_argument
@click.argument("text", required=False)
@click.option("--queue", is_flag=True, help="Let it wait for its turn if the session is busy.")
@click.option("--wait", is_flag=True, help="Print what the process says until the turn is over (exit 1: it failed).")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer unchanged; with --wait, raw lines.")
def send(*, session_ref: str, text: str | None, queue: bool, wait: bool, as_json: bool) -> int:
    """Send TEXT to the process of a SESSION; without TEXT, or with -, what is on standard input."""
    whose, content = session_id(session_ref), _content(text)
    try:
        if wait:
            return _talk(Watch(whose), content, queued=queue, raw=as_json)
        answer = post(Client(), whose, content, queued=queue)
    except Failure as failure:
        if failure.refusal != "SESSION_BUSY" or queue:
            raise
        raise Failure(failure.message, hint="wait until it is READY or IDLE, or add --queue") from None
    if as_json:
        json_out(answer.body)
    else:
        click.echo(f"turn {answer.read(SentMessage).turn}")
    return OK


def _content(text: str | None) -> str:
    if text is None or text == sources.STDIN:
        if sys.stdin is not None and sys.stdin.isatty():
            note("type the message; Ctrl-D on a line of its own ends it")
        text = sources.read_stdin("message", _LONGEST).removesuffix("\n")
    if not text:
        raise Failure("The message is empty", USAGE)
    return text


def _talk(watch: Watch, content: str, *, queued: bool, raw: bool) -> int:
    """Send a message and print what is said until its turn is over."""
    speaker = Speaker(watch.command, raw=raw)
    turn = watch.send(content, queued=queued)
    watch.begin()
    while turn not in watch.turns.outcomes and watch.turns.failed is None:
        item = watch.next()
        _show(item, speaker)
        if item == Ended("output"):
            return _after_the_end(watch, turn)
    for item in watch.rest():
        _show(item, speaker)
    watch.check()
    return _outcome(turn, watch.turns.outcomes[turn])


def _show(item: Item, speaker: Speaker) -> None:
    if isinstance(item, Line):
        speaker.say(item)
    elif isinstance(item, Event) and item.type not in _OF_TURNS and (state := item.state()):
        aside(state)


def _after_the_end(watch: Watch, turn: int) -> int:
    """Return what a turn came to whose session is over: a command that ends itself, without a failure, has done it."""
    process = watch.show().process
    if turn not in watch.turns.outcomes and process is not None and process.reason == "exited":
        return OK
    return _outcome(turn, watch.turns.outcomes.get(turn, "unknown"))


def _outcome(turn: int, outcome: str) -> int:
    if outcome == "done":
        return OK
    raise Failure(_ENDED.get(outcome, "nobody knows how turn {} ended").format(turn), FAILED)
