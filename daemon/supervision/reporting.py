"""What a dialogue tells, on its way to the rows."""

import asyncio
from collections.abc import Callable

from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.turns import TurnEnd
from daemon.services.process_reports import ProcessReports
from daemon.supervision.dialogue import Reports

RETRY_SECONDS = 1.0


def reports_for(session_id: str, rows: ProcessReports, broken: Callable[[], None]) -> Reports:
    """Return whom the dialogue of a session tells.

    Args:
        session_id: the session.
        rows: the way to the rows.
        broken: called when the dialogue cannot go on.
    """

    async def turn_over(end: TurnEnd) -> None:
        # Until it is stored: what the output said is not said again.
        while True:
            try:
                await rows.turn_over(session_id, end)
            except DaemonError as error:
                if error.kind is not STORAGE_UNAVAILABLE:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    # No message can follow the part of one that is in the command's input: it begins again.
    return Reports(turn_over, lambda: rows.rest(session_id, "restart"), broken)
