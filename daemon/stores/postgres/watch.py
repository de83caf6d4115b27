"""What keeps a daemon's memory true to rows that other daemons change."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.domain.ids import uuid7
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.stores.cache import SessionCache
from daemon.stores.postgres import events, values
from daemon.stores.postgres.announcer import Announcer
from daemon.stores.postgres.connection import Connection, Pool, connect
from daemon.stores.postgres.kept import FAILURES
from daemon.stores.postgres.leader import SERVER_SETTINGS, Leader
from daemon.stores.postgres.listener import Listener, Report
from daemon.stores.postgres.server_clock import MEASURE_SECONDS, ServerClock
from daemon.stores.postgres.word import Word
from daemon.stores.protocol import Chore, Elsewhere
