"""Output of a process over HTTP: line by line and as it was written, for as long as there will be any."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain.lines import Line
from daemon.web.output import frames
from tests.support.daemon_process import PASSWORD, wait_for
from tests.support.live import LiveDaemon
from tests.support.streams import Follower

# --- frames


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (Line(7, b'{"a":1}'), 'id: 7\nevent: json\ndata: {"a":1}\n\n'),
        (Line(7, b"[1]"), "id: 7\nevent: json\ndata: [1]\n\n"),
        (Line(7, b'{"a":'), 'id: 7\nevent: text\ndata: {"a":\n\n'),
        (Line(7, b"{}x"), "id: 7\nevent: text\ndata: {}x\n\n"),
        (Line(7, b"12"), "id: 7\nevent: text\ndata: 12\n\n"),
        (Line(1, b""), "id: 1\nevent: text\ndata: \n\n"),
        (Line(7, b"a\r"), "id: 7\nevent: text\ndata: a\n\n"),
        (Line(7, b"10%\r20%\r"), "id: 7\nevent: text\ndata: 10%\ndata: 20%\n\n"),
        (Line(7, b"data: x\rid: 9"), "id: 7\nevent: text\ndata: data: x\ndata: id: 9\n\n"),
        (Line(7, b"\xff\xea\xb0\x80"), "id: 7\nevent: text\ndata: \ufffd가\n\n"),
        (Line(7, b"{", 1, more=True), "id: 7\nevent: piece\ndata: {\n\n"),
        (Line(9, b"}", 2), "id: 9\nevent: last-piece\ndata: }\n\n"),
    ],
)
def test_a_line_is_a_frame_whose_id_is_the_offset_after_it(line: Line, expected: str) -> None:
    assert frames([line]).decode() == expected


@given(st.lists(st.binary(max_size=20).filter(lambda data: b"\n" not in data), max_size=6))
def test_no_line_ends_its_frame_or_forges_another(data: list[bytes]) -> None:
    lines = [Line(number, one) for number, one in enumerate(data)]
    text = frames(lines).decode()
    blocks = text.split("\n\n")[:-1]
    assert [block.splitlines()[0] for block in blocks] == [f"id: {line.end}" for line in lines]
    assert all(row.startswith("data: ") for block in blocks for row in block.split("\n")[2:])
    assert "\r" not in text
    assert frames(lines) == b"".join(frames([line]) for line in lines)


# --- over HTTP


ECHO = "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line.strip() + '\\n'); sys.stdout.flush()\n"
"""Says what it is told, and ends with its input."""


class World:
    """A daemon, and sessions whose process says what it is told."""

    def __init__(self, base: Path) -> None:
        roots = json.dumps([str(base)])
        self.base = base
        self.live = LiveDaemon(
            base / "home",
            DAEMON_PROCESSES_WORKSPACE_ROOTS=roots,
            DAEMON_PROCESSES_SHUTDOWN_PROCESSES="kill",
            DAEMON_PROCESSES_MAX_PROCESSES="50",
        )

    def session(self, command: list[str] | None = None, **more: Any) -> dict[str, Any]:
        process = {"command": command or [sys.executable, "-c", ECHO], "workingDir": str(self.base), "quietAfter": 50}
        made = self.live.new_session(process=process, **more)
        wait_for(lambda: self.state(made) in {"READY", "CLOSED"})
        return made

    def state(self, made: dict[str, Any]) -> str:
        return str(self.live.owner.get(f"/v1/sessions/{made['id']}").json()["state"])

    def say(self, made: dict[str, Any], text: str) -> None:
        wait_for(lambda: self.state(made) in {"READY", "IDLE"})
        self.live.owner.post(f"/v1/sessions/{made['id']}/messages", json={"content": text}).raise_for_status()

    def follow(self, made: dict[str, Any], query: str = "", **headers: str) -> Follower:
        credential = {"X_Master_Password": PASSWORD} if "Authorization" not in headers else {}
        return Follower(self.live.url, f"/v1/sessions/{made['id']}/output{query}", **credential, **headers)

    def raw(self, made: dict[str, Any], **query: Any) -> Any:
        params = {"follow": "false", **query}
        return self.live.owner.get(f"/v1/sessions/{made['id']}/output", params=params)

    def readers(self, made: dict[str, Any]) -> int:
        return len(self.live.daemon.parts.supervisor._readers.get(made["id"], ()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("output"))
    yield made
    made.live.stop()


def test_each_line_comes_as_it_is_written_with_the_offset_to_go_on_from(world: World) -> None:
    made = world.session()
    stream = world.follow(made)
    world.say(made, '{"type":"one"}')
    stream.wait(lambda: len(stream.events) == 1)
    world.say(made, "가")
    stream.wait(lambda: len(stream.events) == 2)
    assert [(seen.id, seen.type, seen.data) for seen in stream.events] == [
        (15, "json", '{"type":"one"}'),
        (19, "text", "가"),
    ]
    for resumed in (world.follow(made, "?offset=15"), world.follow(made, "?offset=3", Last_Event_ID="15")):
        resumed.wait(lambda resumed=resumed: [seen.data for seen in resumed.events] == ["가"])
    end = world.follow(made, "?offset=19")
    assert (end.last_id, end.events) == (19, []), "who has seen no line yet can resume too"
    world.live.owner.post(f"/v1/sessions/{made['id']}/kill").raise_for_status()
    stream.wait_end()


def test_the_stream_of_a_process_that_is_over_ends_after_its_last_line(world: World) -> None:
    made = world.session(["printf", "a\\nb"])
    wait_for(lambda: world.state(made) == "CLOSED")
    stream = world.follow(made)
    stream.wait_end()
    assert [(seen.id, seen.data) for seen in stream.events] == [(2, "a"), (3, "b")]
    end = world.follow(made, "?offset=3")
    end.wait_end()
    assert end.events == []


def test_the_bytes_are_given_as_they_were_written_with_the_offset_after_them(world: World) -> None:
    made = world.session(["sh", "-c", "printf 'a\\r\\n\\377'; printf oops >&2"])
    wait_for(lambda: world.state(made) == "CLOSED")
    whole = world.raw(made)
    assert (whole.content, whole.headers["X-Next-Offset"]) == (b"a\r\n\xff", "4")
    assert whole.headers["Content-Type"].startswith("text/plain")
    assert (world.raw(made, offset=3).content, world.raw(made, offset=4).content) == (b"\xff", b"")
    assert world.raw(made, stream="stderr").content == b"oops"


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"offset": 5}, "offset"),
        ({"offset": -1}, "offset"),
        ({"offset": "x"}, "offset"),
        ({"stream": "stdin"}, "stream"),
        ({"follow": "no"}, "follow"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(world: World, query: dict[str, Any], where: str) -> None:
    made = world.session(["printf", "abc"])
    wait_for(lambda: world.state(made) == "CLOSED")
    for follow in ({"follow": "false"}, {}):
        answer = world.live.owner.get(f"/v1/sessions/{made['id']}/output", params={**follow, **query})
        assert (answer.status_code, [one["path"] for one in answer.json()["errors"]]) == (400, [where])
    assert world.readers(made) == 0


@pytest.mark.parametrize(
    ("accept", "status"),
    [("text/plain", 200), ("text/event-stream", 200), ("text/*", 200), ("application/json", 200), ("image/png", 406)],
)
def test_output_is_not_refused_to_who_names_one_of_its_types(world: World, accept: str, status: int) -> None:
    made = world.session(["printf", "abc"])
    wait_for(lambda: world.state(made) == "CLOSED")
    answer = world.live.owner.get(f"/v1/sessions/{made['id']}/output?follow=false", headers={"Accept": accept})
    assert answer.status_code == status


def test_a_session_follows_its_own_output_and_no_longer_than_it_may(world: World) -> None:
    made, other = world.session(), world.session()
    token = {"Authorization": f"Bearer {made['token']}"}
    stream = world.follow(made, **token)
    world.say(made, "hello")
    stream.wait(lambda: [seen.data for seen in stream.events] == ["hello"])
    assert world.follow(other, **token).status == 404
    wait_for(lambda: world.state(made) == "IDLE")
    world.live.owner.post(f"/v1/sessions/{made['id']}/suspend").raise_for_status()
    stream.wait_end()
    assert "no longer admitted" in stream.comments


def test_one_stream_too_many_is_refused_and_leaves_nothing_behind(world: World) -> None:
    made = world.session()
    token = {"Authorization": f"Bearer {made['token']}"}
    streams = [world.follow(made, **token) for _ in range(4)]
    for _ in range(3):
        assert world.follow(made, **token).status == 429
    assert world.readers(made) == 4
    for stream in streams:
        stream.close()
    wait_for(lambda: world.readers(made) == 0)
