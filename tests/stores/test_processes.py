"""Supervised processes, their turns and the pool, as both engines keep them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon import engines
from daemon.config import load
from daemon.domain import session_creation
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.errors import PROCESS_LIMIT_EXCEEDED, DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.process_rows import Place, Process, Supervised, Turn
from daemon.domain.rows import Agent, Session
from daemon.domain.states import STATES, State
from daemon.home import Home
from daemon.stores.postgres.connection import connect
from daemon.stores.postgres.locks import number
from daemon.stores.protocol import Engine
from tests.support.engines import REFUSED, Databases, ask, both_engines
from tests.support.live import START, FakeTime, MovedClock

pytestmark = [pytest.mark.anyio, both_engines]

Open = Callable[[], Awaitable[Engine]]
POOL = Scope(pool_of="home")


@pytest.fixture
def settings(engine: Databases, tmp_path: Path) -> dict[str, str]:
    """The environment of the daemons of the test."""
    return engine.settings(tmp_path)


@pytest.fixture
def database(settings: dict[str, str], tmp_path: Path) -> Path | str:
    """Where the rows are."""
    return settings.get("DAEMON_DATABASE_URL") or Home(tmp_path).database


async def open_store(root: Path, settings: dict[str, str]) -> Engine:
    """Open a store as a daemon would."""
    time, home, config = FakeTime(), Home(root), load(root, settings, {}).config
    clock = MovedClock(lambda: time.wall, lambda: time.mono)
    await engines.prepare(home, config, clock, lambda _: None)
    return await engines.open_engine(home, config, clock, announce=lambda _: None, report=lambda *_, **__: None)


@pytest.fixture
async def another(settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Open]:
    """Open one more store."""
    async with AsyncExitStack() as stack:

        async def start() -> Engine:
            store = await open_store(tmp_path, settings)
            stack.push_async_callback(store.close)
            return store

        yield start


@pytest.fixture
async def store(another: Open) -> Engine:
    """One daemon's store, with an agent."""
    made = await another()
    await write(made, new_agent=Agent("agent", "agent", "ACTIVE", created_at=START, updated_at=START))
    return made


@pytest.fixture
async def stores(store: Engine, another: Open, settings: dict[str, str]) -> list[Engine]:
    """The stores of daemons that share the rows; SQLite's are one daemon's."""
    return [store, await another(), await another()] if "DAEMON_DATABASE_URL" in settings else [store] * 3


def supervised(name: str, state: State = "IDLE", **fields: Any) -> Session:
    known: dict[str, Any] = {"token_hash": f"hash of {name}", "created_at": START - 100, "state": state}
    known |= dict.fromkeys(("expires_at", "absolute_expires_at"), START + 3600)
    return session_creation.blank(name, "agent", **{"created_by": "process", "max_renewals": 3} | known | fields)


def process(name: str, home: str = "home", **fields: Any) -> Process:
    return Process(name, home, '{"command":"claude"}', None, "external", **fields)


async def change(store: Engine, scope: Scope, decide: Callable[[Rows], Outcome[Any]]) -> Any:
    return await store.change(scope, lambda rows, _now: decide(rows), SYSTEM)


async def write(store: Engine, scope: Scope | None = None, **outcome: Any) -> None:
    await change(store, scope or Scope(), lambda _: Outcome(answer=None, **outcome))


async def begin(store: Engine, name: str, state: State = "IDLE", **fields: Any) -> None:
    """Make a session with its process."""
    await write(store, new_session=supervised(name, state), new_process=process(name, **fields))


async def alter(store: Engine, name: str, state: State | None = None, **fields: Any) -> Any:
    """Change a session's state and its process; return what was seen of the process before."""

    def decide(rows: Rows) -> Outcome[Any]:
        assert rows.process is not None
        changed = rows.session and msgspec.structs.replace(rows.session, state=state or rows.session.state)
        return Outcome(answer=rows.process, session=changed, process=msgspec.structs.replace(rows.process, **fields))

    return await change(store, seeing(name), decide)


def seeing(name: str, **more: Any) -> Scope:
    return Scope(session=name, process=True, **more)


async def look(store: Engine, name: str) -> tuple[Process | None, list[Turn]]:
    """Return what a change sees of a session's process."""
    found: tuple[Process | None, list[Turn]] = await change(
        store, seeing(name), lambda rows: Outcome(answer=(rows.process, rows.turns))
    )
    return found


async def pool(store: Engine, home: str = "home") -> list[Place]:
    """Return the places that a change sees, in the order of their sessions."""
    places: list[Place] = await change(store, Scope(pool_of=home), lambda rows: Outcome(answer=rows.pool))
    return sorted(places, key=lambda place: place.session_id)


async def taken(store: Engine, home: str = "home") -> list[str]:
    return [place.session_id for place in await pool(store, home)]


def full(name: str) -> Process:
    """Return a process with a value of its own in every field."""
    seconds = iter(range(START, START + 100))
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Process):
        values[field.name] = next(seconds) if "int" in str(field.type) else f"{field.name} 👍"
    values |= {"session_id": name, "home": "home", "resumable": True, "rest": "idle", "suspended_by": "budget"}
    return Process(**values | {"output_offset": 1 << 40})


async def test_every_field_is_stored_when_a_process_begins_and_when_it_changes(store: Engine) -> None:
    await write(store, new_session=supervised("a"), new_process=full("a"))
    await begin(store, "b")
    assert [await store.process("a"), await store.process("b")] == [full("a"), process("b")]
    fields = {name: getattr(full("b"), name) for name in Process.__struct_fields__}
    assert await alter(store, "b", **fields) == process("b")
    assert await store.process("b") == full("b")
    assert await alter(store, "b", **{name: getattr(process("b"), name) for name in fields}) == full("b")
    found = await store.process("b")
    assert found == process("b")
    assert found is not None
    assert found.resumable is False


async def test_a_change_writes_the_columns_that_it_decided_on_alone(store: Engine, database: Path | str) -> None:
    await begin(store, "a", pid=7)
    ask(database, "UPDATE processes SET reason = 'written past the daemon'")
    await alter(store, "a", failures=2)
    assert await store.process("a") == process("a", pid=7, failures=2, reason="written past the daemon")


async def test_turns_that_are_not_over_are_seen_the_oldest_first(store: Engine) -> None:
    await begin(store, "a")
    await begin(store, "b")
    waiting = [Turn("a", at, "QUEUED", f"Gespräch {at}", START) for at in (2, 10, 1)]
    other = Turn("b", 1, "RUNNING", "other", START, START + 1)
    await write(store, turns=(*waiting, other))
    assert await look(store, "a") == (process("a"), [waiting[2], waiting[0], waiting[1]])
    begun = msgspec.structs.replace(waiting[0], state="RUNNING", started_at=START)
    ended = Turn("a", 1, "DONE", None, START, START, START + 1)
    await write(store, turns=(ended, begun))
    assert (await look(store, "a"))[1] == [begun, waiting[1]]
    assert (await look(store, "b"))[1] == [other]
    for state in ("FAILED", "INTERRUPTED", "UNKNOWN"):
        await write(store, turns=(msgspec.structs.replace(begun, state=state, content=None),))
        assert (await look(store, "a"))[1] == [waiting[1]]


async def test_one_reading_has_a_session_with_all_that_decides_what_its_process_is_to_do(store: Engine) -> None:
    await begin(store, "a")
    await write(store, new_session=supervised("b", created_by="api"))
    agent = Agent("agent", "agent", "ACTIVE", created_at=START, updated_at=START)
    assert await store.supervised("a") == Supervised(supervised("a"), agent, process("a"), [])
    turns = [Turn("a", at, state, "x", START) for at, state in ((3, "RUNNING"), (4, "QUEUED"))]
    await write(store, turns=(turns[1], turns[0], Turn("a", 2, "DONE", None, START, START, START)))
    assert await store.supervised("a") == Supervised(supervised("a"), agent, process("a"), turns)
    assert [await store.supervised(name) for name in ("b", "x")] == [None] * 2
    assert [await store.process(name) for name in ("b", "x")] == [None] * 2
    assert await look(store, "b") == await look(store, "x") == (None, [])


async def test_one_reading_is_one_moment(store: Engine) -> None:
    await begin(store, "a")

    async def work() -> None:
        for at in range(1, 60):
            for turn_state, state in (("RUNNING", "ACTIVE"), ("DONE", "IDLE")):
                session = supervised("a", state)
                turn = Turn("a", at, turn_state, None, START)
                await change(
                    store,
                    seeing("a"),
                    lambda rows, session=session, turn=turn: Outcome(
                        answer=None,
                        session=session,
                        process=rows.process and msgspec.structs.replace(rows.process, last_turn=turn.turn),
                        turns=(turn,),
                    ),
                )

    working = asyncio.create_task(work())
    while not working.done():
        found = await store.supervised("a")
        assert found is not None
        running = [found.process.last_turn] if found.session.state == "ACTIVE" else []
        assert [turn.turn for turn in found.turns] == running
    await working


async def test_what_is_under_way_is_a_homes_own_and_not_closed(store: Engine) -> None:
    for state in STATES:
        await begin(store, state, state, rest="pool")
    await begin(store, "other", home="elsewhere")
    found = await store.under_way("home")
    expected = sorted(state for state in STATES if state != "CLOSED")
    assert [(session.id, session.state, row.session_id) for session, row in found] == [(x, x, x) for x in expected]
    assert found[0] == (supervised("ACTIVE", "ACTIVE"), process("ACTIVE", rest="pool"))
    assert [session.id for session, _ in await store.under_way("elsewhere")] == ["other"]
    assert await store.under_way("") == []


def variants() -> list[tuple[str, State, dict[str, Any], bool]]:
    """Return processes in all that decides on their place: name, state, fields, and whether they take one."""
    found = []
    for state, pid, restart_at, rest in itertools.product(STATES, (None, 7), (None, START), (None, "pool", "restart")):
        running = state in {"CREATED", "INITIALIZING", "READY", "ACTIVE", "IDLE"} or pid or restart_at
        takes = rest is None and state != "CLOSED" and bool(running)
        found.append((f"{len(found):03}", state, {"pid": pid, "restart_at": restart_at, "rest": rest}, takes))
    return found


async def test_places_are_taken_by_what_runs_and_what_is_about_to(store: Engine) -> None:
    for name, state, fields, _ in variants():
        await begin(store, name, state, **fields)
    await begin(store, "other", home="elsewhere")
    expected = [
        Place(name, "agent", state, START - 100, '{"command":"claude"}')
        for name, state, _, takes in variants()
        if takes
    ]
    assert await pool(store) == expected
    assert await taken(store, "elsewhere") == ["other"]
    assert await pool(store, "nobody") == []
    await change(
        store, seeing("003"), lambda _: Outcome(answer=None, session=supervised("003", state_changed_at=START))
    )
    assert [place.since for place in await pool(store) if place.session_id == "003"] == [START]


async def test_a_later_unit_of_a_batch_sees_the_places_as_the_earlier_ones_left_them(store: Engine) -> None:
    turned = list(reversed(variants()))
    for name, state, fields, _ in variants():
        await begin(store, name, state, **fields)
    work = [
        alter(store, name, state, **fields)
        for (name, *_), (_, state, fields, _) in zip(variants(), turned, strict=True)
    ]
    work += [begin(store, "new"), begin(store, "old", rest="pool"), begin(store, "other", home="elsewhere")]
    *_, seen = await asyncio.gather(*work, pool(store))
    expected = [name for (name, *_), (*_, takes) in zip(variants(), turned, strict=True) if takes]
    assert [place.session_id for place in seen] == [*expected, "new"]
    assert seen == await pool(store)


async def test_a_later_unit_of_a_batch_sees_processes_and_turns_as_the_earlier_ones_left_them(store: Engine) -> None:
    await begin(store, "a")
    first, second = (Turn("a", at, "QUEUED", "x", START) for at in (1, 2))
    running = msgspec.structs.replace(first, state="RUNNING")
    *_, seen, new, before = await asyncio.gather(
        write(store, turns=(second, first)),
        alter(store, "a", pid=7),
        write(store, turns=(running,)),
        write(store, turns=(msgspec.structs.replace(second, state="DONE", content=None),)),
        alter(store, "a", run=2),
        begin(store, "b", pid=8),
        write(store, turns=(Turn("b", 1, "QUEUED", "y", START),)),
        look(store, "a"),
        look(store, "b"),
        alter(store, "b", pid=9),
    )
    assert seen == (process("a", pid=7, run=2), [running])
    assert (new, before) == ((process("b", pid=8), [Turn("b", 1, "QUEUED", "y", START)]), process("b", pid=8))
    assert await look(store, "a") == seen
    assert await store.process("b") == process("b", pid=9)


async def test_a_change_that_does_not_ask_for_the_process_may_take_its_place_all_the_same(store: Engine) -> None:
    for name in ("a", "b", "c"):
        await begin(store, name)

    async def close(name: str) -> None:
        await write(store, Scope(session=name), session=supervised(name, "CLOSED"))

    every = change(
        store,
        Scope(pick="every", pool_of="home"),
        lambda rows: Outcome(answer=[place.session_id for place in rows.pool], sessions=(supervised("c", "CLOSING"),)),
    )
    _, seen, picked, after = await asyncio.gather(close("a"), taken(store), every, taken(store))
    assert [seen, sorted(picked), after, await taken(store)] == [["b", "c"], ["b", "c"], ["b"], ["b"]]


async def test_room_is_given_up_once_and_what_rests_already_goes_on_resting(store: Engine) -> None:
    for name, rest in (("a", None), ("b", None), ("c", "idle")):
        await begin(store, name, rest=rest, pid=7)

    async def give_up(name: str, scope: Scope) -> None:
        await write(store, scope, room=Place(name, "agent", "IDLE", START, "{}"))

    _, left, _, _, _, seen, resting, nobody = await asyncio.gather(
        give_up("a", POOL),
        taken(store),
        give_up("a", POOL),
        give_up("b", POOL),
        give_up("c", Scope()),
        look(store, "b"),
        look(store, "c"),
        taken(store),
    )
    assert (left, nobody) == (["b"], [])
    assert (seen[0], resting[0]) == (process("b", rest="pool", pid=7), process("c", rest="idle", pid=7))
    found = [await store.process(name) for name in ("a", "b", "c")]
    assert found == [process(name, rest=rest, pid=7) for name, rest in (("a", "pool"), ("b", "pool"), ("c", "idle"))]
    assert await taken(store) == []


async def asked_for(store: Engine, name: str, most: int) -> str:
    """Make a session if there is a place for its process."""

    def decide(rows: Rows) -> Outcome[str]:
        if len(rows.pool) >= most:
            raise DaemonError(PROCESS_LIMIT_EXCEEDED)
        return Outcome(answer=name, new_session=supervised(name), new_process=process(name))

    try:
        answer: str = await change(store, POOL, decide)
    except DaemonError as refusal:
        return refusal.code
    return answer


async def test_one_free_place_is_given_to_one_of_those_that_ask_at_once(stores: list[Engine]) -> None:
    for most in range(1, 6):
        work = [asked_for(one, f"{most} {at} {n}", most) for n in range(3) for at, one in enumerate(stores)]
        made = await asyncio.gather(*work)
        assert sorted(made)[1:] == ["PROCESS_LIMIT_EXCEEDED"] * 8
        assert len(await taken(stores[0])) == most


async def test_who_makes_room_does_not_begin_to_work_meanwhile(stores: list[Engine]) -> None:
    def making_room(rows: Rows) -> Outcome[int]:
        idle = [place for place in rows.pool if place.state == "IDLE"]
        return Outcome(answer=len(idle), room=idle[0] if idle else None)

    def working(rows: Rows) -> Outcome[bool]:
        if rows.session is None or rows.process is None or rows.process.rest is not None:
            return Outcome(answer=False)
        return Outcome(answer=True, session=msgspec.structs.replace(rows.session, state="ACTIVE"))

    for at in range(12):
        await begin(stores[0], str(at), pid=7)
        room, works, _ = await asyncio.gather(
            change(stores[0], POOL, making_room),
            change(stores[1], seeing(str(at)), working),
            change(stores[2], seeing(str(at)), lambda _: Outcome(answer=None)),
        )
        found = await stores[0].supervised(str(at))
        assert found is not None
        assert (found.session.state, found.process.rest) == (("ACTIVE", None) if works else ("IDLE", "pool"))
        assert room == (not works)


async def test_homes_do_not_wait_for_each_other_and_whoever_decides_on_one_waits_for_it(
    database_url: str, tmp_path: Path
) -> None:
    store, stranger = await open_store(tmp_path, {"DAEMON_DATABASE_URL": database_url}), await connect(database_url)
    await write(store, new_agent=Agent("agent", "agent", "ACTIVE", created_at=START, updated_at=START))
    await begin(store, "a")
    await begin(store, "b", home="elsewhere")
    for decide in (lambda: alter(store, "a", pid=7), lambda: taken(store)):
        await stranger.execute(f"BEGIN; SELECT pg_advisory_xact_lock({number('home', 'home')})")
        await alter(store, "b", pid=7)
        assert await taken(store, "elsewhere") == ["b"]
        await write(store, Scope(session="a"), session=supervised("a"))
        deciding = asyncio.create_task(decide())
        await asyncio.sleep(0.1)
        assert not deciding.done()
        await stranger.execute("COMMIT")
        await deciding
    await stranger.close()
    await store.close()


async def test_a_unit_that_breaks_a_rule_harms_no_other_of_its_batch(store: Engine) -> None:
    await begin(store, "a")
    work = [
        alter(store, "a", pid=7),
        write(store, new_process=process("a")),
        write(store, new_process=process("nobody")),
        begin(store, "b", rest="never"),
        write(store, turns=(Turn("nobody", 1, "QUEUED", "x", START),)),
        write(store, turns=(Turn("a", 1, "QUEUED", "x", START),)),
    ]
    results = await asyncio.gather(*work, return_exceptions=True)
    failed = "STORAGE_UNAVAILABLE"
    assert [getattr(one, "code", "") for one in results] == ["", failed, failed, failed, failed, ""]
    assert await look(store, "a") == (process("a", pid=7), [Turn("a", 1, "QUEUED", "x", START)])
    assert [await store.session("b"), await store.process("b")] == [None, None]


async def test_sessions_of_whose_processes_something_may_be_left_are_not_deleted(
    store: Engine, database: Path | str
) -> None:
    for at, state in enumerate(STATES):
        ended: dict[str, Any] = {"revoked_at": START - 50} if at % 2 else {"expired_at": START - 50}
        await write(store, new_session=supervised(state, state, **ended), new_process=process(state))
        await write(store, turns=(Turn(state, 1, "DONE", None, START),))
    for name, fields in (("revoked", {"revoked_at": START - 50}), ("recent", {"revoked_at": START - 1})):
        await write(store, new_session=supervised(name, "CLOSED", created_by="api", **fields))
    assert await store.purge_sessions(START - 10, 1) == 1
    assert await store.purge_sessions(START - 10, 100) == 1
    assert await store.purge_sessions(START - 10, 100) == 0
    left = sorted(set(STATES) - {"CLOSED"})
    assert ask(database, "SELECT id FROM sessions ORDER BY id") == [(name,) for name in (*left, "recent")]
    for table in ("processes", "turns"):
        assert ask(database, f"SELECT session_id FROM {table} ORDER BY 1") == [(name,) for name in left]


async def test_a_process_that_is_busy_is_not_taken_for_a_quiet_session(store: Engine) -> None:
    await write(store, new_session=supervised("a", "ACTIVE"), new_process=process("a"))
    await write(store, new_session=supervised("b", "ACTIVE", created_by="api"))
    scope = Scope(pick="quiet", quiet_for=10)
    found = await change(store, scope, lambda rows: Outcome(answer=[session.id for session in rows.sessions]))
    assert found == ["b"]


async def test_a_process_and_its_turns_belong_to_a_session_and_go_with_it(store: Engine, database: Path | str) -> None:
    await begin(store, "a")
    await write(store, turns=(Turn("a", 1, "QUEUED", "x", START),))
    with pytest.raises(REFUSED):
        ask(database, "UPDATE turns SET state = 'OTHER'")
    with pytest.raises(REFUSED):
        ask(database, "INSERT INTO turns SELECT * FROM turns")
    await write(store, Scope(session="a", ends=True), session=supervised("a", "CLOSED", revoked_at=START - 50))
    assert await store.purge_sessions(START - 10, 9) == 1
    assert [ask(database, f"SELECT count(*) FROM {table}") for table in ("processes", "turns")] == [[(0,)]] * 2
