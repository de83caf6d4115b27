"""The session of `daemon run`, as its command has it: renewed by the client, and ended by its own token."""

import os
from pathlib import Path

from daemon.cli import base
from daemon.cli.client import Client
from daemon.cli.failure import RUN_FAILED, Failure
from daemon.client import ClientError, Session, SessionEnded
from daemon.client.finding import TOKEN, TOKEN_FILE, URL
from daemon.config import SECRET_VARIABLES, STORAGE_VARIABLES, VERIFIER_VARIABLE
from daemon.domain.views import CreatedSession

_PATIENCE = 5.0
"""Seconds for the end of the session, once the command has ended."""


def renewed(file: Path) -> Session:
    """Return the session that is renewed for the command, wherever its daemon is by then.

    Raises:
        Failure: the client cannot go where the command line can.
    """
    url = base.url()
    try:
        return Session.open(file, url=url, home=None if url else base.home().root, timeout=_PATIENCE)
    except ClientError as error:
        raise Failure(str(error), RUN_FAILED) from None


def environment(client: Client, made: CreatedSession, file: Path) -> dict[str, str]:
    """Return the command's environment: ours without what is the owner's, and where its session and its daemon are."""
    withheld = {*SECRET_VARIABLES, *STORAGE_VARIABLES, VERIFIER_VARIABLE, TOKEN}
    kept = {name: value for name, value in os.environ.items() if name not in withheld}
    return kept | {
        TOKEN_FILE: str(file),
        URL: client.at.url,
        "DAEMON_SESSION_ID": made.id,
        "DAEMON_AGENT_ID": made.agent_id,
    }


def end(session: Session) -> bool:
    """End the session by its own token, since the owner's ticket may be over by now; return whether it is ended."""
    try:
        session.end()
    except SessionEnded:
        return True
    except ClientError:
        return False
    return True
