"""What a batch knows of supervised processes, of their turns and of the places that they take."""

from collections.abc import Iterable
from typing import Any

import msgspec

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.process_rows import Place, Process, Turn
from daemon.domain.rows import Session
from daemon.stores.postgres.processes import Update, takes_place


class ProcessLedger:
    """The ledger's part for processes: what a unit decided, those after it in the batch see.

    Args:
        sessions: the ledger's own, by id.
    """

    def __init__(self, sessions: dict[str, Session]) -> None:
        self._sessions = sessions
        self._rows: dict[str, Process] = {}
        self._turns: dict[tuple[str, int], Turn] = {}
        self._places: list[tuple[str, Place]] = []
        self._read: dict[str, Process] = {}
        self.begun: list[str] = []
        """Sessions whose process is new."""
        self.resting: set[str] = set()
        """Sessions whose process, which was not read, makes room for another."""
        self.told: dict[tuple[str, int], Turn] = {}
        """Turns that began or changed."""

    def opened(self, rows: Iterable[Process], turns: Iterable[Turn], places: Iterable[tuple[str, Place]]) -> None:
        """Take over what was read.

        Args:
            rows: the processes of all sessions of the ledger whose place may change.
            turns: that are not over.
            places: that are taken, each with its home.
        """
        self._read = {process.session_id: process for process in rows}
        self._rows = dict(self._read)
        self._turns = {(turn.session_id, turn.turn): turn for turn in turns}
        self._places = list(places)

    def show(self, scope: Scope, rows: Rows) -> None:
        """Add what a change asked to see."""
        session = rows.session
        if scope.process and session is not None and session.supervised:
            rows.process = self._rows.get(session.id)
            rows.turns = [turn for key, turn in sorted(self._turns.items()) if key[0] == session.id and _waits(turn)]
        if scope.pool_of is not None:
            rows.pool = self._pool(scope.pool_of)

    def _pool(self, home: str) -> list[Place]:
        """Return the places as they are by now: those of processes that were not read change by giving way alone."""
        known = self._rows.keys() | self.resting
        taken = [place for of, place in self._places if of == home and place.session_id not in known]
        for process in self._rows.values():
            session = self._sessions.get(process.session_id)
            if process.home == home and session is not None and takes_place(session, process):
                taken.append(_place(session, process))
        return taken

    def take(self, rows: Rows, outcome: Outcome[Any]) -> None:
        """Take over what was decided."""
        if outcome.new_process is not None:
            self.begun.append(outcome.new_process.session_id)
            self._rows[outcome.new_process.session_id] = outcome.new_process
        if outcome.process is not None and rows.process is not None:
            self._rows[outcome.process.session_id] = outcome.process
        if outcome.room is not None:
            self._rest(outcome.room.session_id)
        for turn in outcome.turns:
            self._turns[turn.session_id, turn.turn] = self.told[turn.session_id, turn.turn] = turn

    def _rest(self, session_id: str) -> None:
        process = self._rows.get(session_id)
        if process is None:
            self.resting.add(session_id)
        elif process.rest is None:
            self._rows[session_id] = msgspec.structs.replace(process, rest="pool")

    def made(self) -> list[Process]:
        """Return the processes that are new."""
        return [self._rows[session_id] for session_id in self.begun]

    def changed(self) -> list[Update]:
        """Return the processes that were read and differ now."""
        return [(before, self._rows[key]) for key, before in self._read.items() if self._rows[key] is not before]

    def changed_turns(self) -> list[Turn]:
        """Return the turns that began or differ now, in the order of their keys."""
        return [self.told[key] for key in sorted(self.told)]


def _waits(turn: Turn) -> bool:
    return turn.state in {"QUEUED", "RUNNING"}


def _place(session: Session, process: Process) -> Place:
    since = session.created_at if session.state_changed_at is None else session.state_changed_at
    return Place(session.id, session.agent_id, session.state, since, process.config)
