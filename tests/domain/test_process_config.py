"""The configuration of a process: what is wrong with it is told at once, by its path, before anything is written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.domain.process_config import (
    MAX_ARGUMENT,
    MAX_ARGUMENTS,
    MAX_ENVIRONMENT,
    MAX_PROMPT,
    MIN_MEMORY,
    OF_SHELLS,
    Budget,
    PatchProcess,
    ProcessConfig,
    Secrets,
    join,
    split,
)
from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon

GENERIC: dict[str, Any] = {"command": ["cat"]}
CLAUDE: dict[str, Any] = {"command": "claude"}
FIELDS = {field.encode_name: field for field in msgspec.structs.fields(ProcessConfig)}
OF_CLAUDE = {"systemPrompt": "x", "maxTurns": 3, "allowedTools": ["Read"], "toolTimeout": 9, "model": "m", "budget": {}}


class World:
    """A daemon whose processes may work in one directory, and what it holds."""

    def __init__(self, base: Path, **settings: str) -> None:
        self.root = base / "root"
        self.root.mkdir(parents=True)
        roots = json.dumps([str(self.root)])
        environ = {"DAEMON_PROCESSES_WORKSPACE_ROOTS": roots, "DAEMON_PROCESSES_SHUTDOWN_PROCESSES": "kill"}
        self.live = LiveDaemon(base / "home", **{**environ, **settings})
        self.agent = self.live.new_agent()

    def create(self, process: Any, **more: Any) -> Any:
        content = json.dumps({"agentId": self.agent, "process": process, **more})  # httpx's own refuses "\ud800"
        return self.live.owner.post("/v1/sessions", content=content, headers={"Content-Type": "application/json"})

    def holds(self) -> list[Any]:
        tables = ("sessions", "processes", "turns", "idempotency_keys", "audit_log")
        directories = sorted(path.name for path in self.live.home.processes.iterdir())
        return [directories, *(self.live.query(f"SELECT * FROM {name} ORDER BY 1") for name in tables)]

    def refused(self, process: Any, **more: Any) -> list[tuple[str, str]]:
        """Return what is wrong with a new session, of which nothing is written."""
        before = self.holds()
        problems = problems_of(self.create(process, **more))
        assert self.holds() == before
        return problems


def problems_of(answer: Any) -> list[tuple[str, str]]:
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), answer.text
    return [(problem["path"], problem["message"]) for problem in answer.json()["errors"]]


def paths(problems: list[tuple[str, str]]) -> list[str]:
    return sorted(path for path, _ in problems)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("config"))
    yield made
    made.live.stop()


@pytest.fixture(scope="module")
def session(world: World) -> str:
    """The id of a session whose process waits for a message."""
    made = world.create({**GENERIC, "workingDir": str(world.root), "environment": {"A": "s3cret"}}).json()
    wait_for(lambda: world.live.owner.get(f"/v1/sessions/{made['id']}").json()["state"] == "READY")
    return str(made["id"])


# --- one bad value, in a new session and in a change

TOO_LARGE = {f"A{number}": "x" * 32_768 for number in range(3)}
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # a field of the wrong type
    (GENERIC, {"command": 7}, "command"),
    (GENERIC, {"command": None}, "command"),
    (GENERIC, {"command": ["cat", 7]}, "command.1"),
    (GENERIC, {"workingDir": 7}, "workingDir"),
    (GENERIC, {"workingDir": None}, "workingDir"),
    (CLAUDE, {"systemPrompt": 7}, "systemPrompt"),
    (CLAUDE, {"maxTurns": "7"}, "maxTurns"),
    (CLAUDE, {"maxTurns": 7.5}, "maxTurns"),
    (GENERIC, {"temperature": "7"}, "temperature"),
    (CLAUDE, {"allowedTools": "Read"}, "allowedTools"),
    (CLAUDE, {"allowedTools": ["Read", None]}, "allowedTools.1"),
    (CLAUDE, {"toolTimeout": "7"}, "toolTimeout"),
    (GENERIC, {"environment": ["A=1"]}, "environment"),
    (GENERIC, {"environment": {"A": 1}}, "environment.A"),
    (GENERIC, {"environment": {"A": None}}, "environment.A"),
    (GENERIC, {"oauthToken": 7}, "oauthToken"),
    (CLAUDE, {"model": 7}, "model"),
    (GENERIC, {"maxMemory": "1G"}, "maxMemory"),
    (GENERIC, {"maxMemory": 1.5e9 + 0.5}, "maxMemory"),
    (GENERIC, {"maxCpu": "1"}, "maxCpu"),
    (GENERIC, {"maxDuration": "1h"}, "maxDuration"),
    (GENERIC, {"idleTimeout": True}, "idleTimeout"),
    (GENERIC, {"quietAfter": []}, "quietAfter"),
    (CLAUDE, {"budget": 7}, "budget"),
    (CLAUDE, {"budget": {"maxTokens": "7"}}, "budget.maxTokens"),
    (CLAUDE, {"budget": {"maxCostUsd": "7"}}, "budget.maxCostUsd"),
    (GENERIC, {"restart": True}, "restart"),
    # out of range
    (GENERIC, {"command": []}, "command"),
    (GENERIC, {"command": ["x"] * (MAX_ARGUMENTS + 1)}, "command"),
    (GENERIC, {"command": ["cat", "x" * (MAX_ARGUMENT + 1)]}, "command.1"),
    (GENERIC, {"command": ["", "x"]}, "command.0"),
    (GENERIC, {"command": [" \t"]}, "command.0"),
    (GENERIC, {"command": "bash"}, "command"),
    (GENERIC, {"command": ""}, "command"),
    (GENERIC, {"workingDir": ""}, "workingDir"),
    (GENERIC, {"workingDir": "/"}, "workingDir"),
    (GENERIC, {"workingDir": "/" + "x" * 4096}, "workingDir"),
    (GENERIC, {"workingDir": "relative"}, "workingDir"),
    (GENERIC, {"workingDir": "./relative"}, "workingDir"),
    (GENERIC, {"workingDir": "~/code"}, "workingDir"),
    (CLAUDE, {"systemPrompt": ""}, "systemPrompt"),
    (CLAUDE, {"systemPrompt": "x" * (MAX_PROMPT + 1)}, "systemPrompt"),
    (CLAUDE, {"systemPrompt": "가" * (MAX_PROMPT // 3 + 1)}, "systemPrompt"),
    (CLAUDE, {"maxTurns": 0}, "maxTurns"),
    (CLAUDE, {"maxTurns": 1001}, "maxTurns"),
    (GENERIC, {"temperature": -0.1}, "temperature"),
    (GENERIC, {"temperature": 2.1}, "temperature"),
    (CLAUDE, {"allowedTools": ["x"] * 101}, "allowedTools"),
    (CLAUDE, {"allowedTools": [""]}, "allowedTools.0"),
    (CLAUDE, {"allowedTools": ["Read", "x" * 201]}, "allowedTools.1"),
    (CLAUDE, {"allowedTools": ["--dangerously-skip-permissions"]}, "allowedTools.0"),
    (CLAUDE, {"allowedTools": [",Bash"]}, "allowedTools.0"),
    (CLAUDE, {"toolTimeout": -1}, "toolTimeout"),
    (CLAUDE, {"toolTimeout": 301}, "toolTimeout"),
    (GENERIC, {"environment": {f"A{number}": "" for number in range(201)}}, "environment"),
    (GENERIC, {"environment": TOO_LARGE}, "environment"),
    (GENERIC, {"environment": {"A": "x" * 32_769}}, "environment.A"),
    (GENERIC, {"environment": {"": "x"}}, "environment"),
    (GENERIC, {"environment": {"A" * 201: "x"}}, "environment." + "A" * 201),
    (GENERIC, {"environment": {"1A": "x"}}, "environment.1A"),
    (GENERIC, {"environment": {"A=B": "x"}}, "environment.A=B"),
    (GENERIC, {"environment": {"A B": "x"}}, "environment.A B"),
    (GENERIC, {"environment": {"가": "x"}}, "environment.가"),
    (GENERIC, {"environment": {"BASH_FUNC_x%%": "() { :; }"}}, "environment.BASH_FUNC_x%%"),
    (GENERIC, {"oauthToken": ""}, "oauthToken"),
    (GENERIC, {"oauthToken": "x" * 4097}, "oauthToken"),
    (GENERIC, {"oauthToken": "to ken"}, "oauthToken"),
    (GENERIC, {"oauthToken": "토큰"}, "oauthToken"),
    (CLAUDE, {"model": ""}, "model"),
    (CLAUDE, {"model": "x" * 201}, "model"),
    (CLAUDE, {"model": "--print"}, "model"),
    (GENERIC, {"maxMemory": -1}, "maxMemory"),
    (GENERIC, {"maxMemory": MIN_MEMORY - 1}, "maxMemory"),
    (GENERIC, {"maxMemory": 2**53}, "maxMemory"),
    (GENERIC, {"maxCpu": -1}, "maxCpu"),
    (GENERIC, {"maxCpu": 0.04}, "maxCpu"),
    (GENERIC, {"maxCpu": 4097}, "maxCpu"),
    (GENERIC, {"maxDuration": -1}, "maxDuration"),
    (GENERIC, {"maxDuration": 59}, "maxDuration"),
    (GENERIC, {"maxDuration": 86_401}, "maxDuration"),
    (GENERIC, {"idleTimeout": -1}, "idleTimeout"),
    (GENERIC, {"idleTimeout": 59}, "idleTimeout"),
    (GENERIC, {"idleTimeout": 604_801}, "idleTimeout"),
    (GENERIC, {"quietAfter": 49}, "quietAfter"),
    (GENERIC, {"quietAfter": 60_001}, "quietAfter"),
    (CLAUDE, {"budget": {"maxCostUsd": 0}}, "budget.maxCostUsd"),
    (CLAUDE, {"budget": {"maxCostUsd": 1_000_001}}, "budget.maxCostUsd"),
    (CLAUDE, {"budget": {"maxTokens": 0}}, "budget.maxTokens"),
    (CLAUDE, {"budget": {"maxTokens": 2**53}}, "budget.maxTokens"),
    (GENERIC, {"restart": "always"}, "restart"),
    # a character that ends a text elsewhere
    (GENERIC, {"command": ["cat", "a\0b"]}, "command.1"),
    (GENERIC, {"workingDir": "/a\0b"}, "workingDir"),
    (CLAUDE, {"systemPrompt": "a\0b"}, "systemPrompt"),
    (CLAUDE, {"allowedTools": ["a\0b"]}, "allowedTools.0"),
    (CLAUDE, {"allowedTools": ["Bash\n"]}, "allowedTools.0"),
    (GENERIC, {"environment": {"A": "a\0b"}}, "environment.A"),
    (GENERIC, {"environment": {"A\0": "x"}}, "environment.A\0"),
    (GENERIC, {"environment": {"A\n": "x"}}, "environment.A\n"),
    (GENERIC, {"oauthToken": "a\0b"}, "oauthToken"),
    (GENERIC, {"oauthToken": "token\n"}, "oauthToken"),
    (CLAUDE, {"model": "a\0b"}, "model"),
    (CLAUDE, {"model": "model\n"}, "model"),
    # variables that change what runs, or that are the daemon's
    (GENERIC, {"environment": {"PATH": "/tmp"}}, "environment.PATH"),
    (GENERIC, {"environment": {"LD_PRELOAD": "/tmp/x.so"}}, "environment.LD_PRELOAD"),
    (GENERIC, {"environment": {"LD_LIBRARY_PATH": "/tmp"}}, "environment.LD_LIBRARY_PATH"),
    (GENERIC, {"environment": {"LD_": ""}}, "environment.LD_"),
    (GENERIC, {"environment": {"DYLD_INSERT_LIBRARIES": "x"}}, "environment.DYLD_INSERT_LIBRARIES"),
    (GENERIC, {"environment": {"DAEMON_TOKEN_FILE": "/x"}}, "environment.DAEMON_TOKEN_FILE"),
    (GENERIC, {"environment": {"DAEMON_PROCESS_MARK": "x"}}, "environment.DAEMON_PROCESS_MARK"),
    *((GENERIC, {"environment": {name: "x"}}, f"environment.{name}") for name in sorted(OF_SHELLS)),
    # what the command's adapter cannot do
    *((GENERIC, {name: value}, name) for name, value in OF_CLAUDE.items()),
    (GENERIC, {"temperature": 0.5}, "temperature"),
    (CLAUDE, {"temperature": 0.5}, "temperature"),
    (CLAUDE, {"quietAfter": 500}, "quietAfter"),
    # a field that is none
    (GENERIC, {"workdir": "/"}, "workdir"),
    (CLAUDE, {"budget": {"maxUsd": 1}}, "budget.maxUsd"),
]  # fmt: skip
NAMES = [f"{where} {json.dumps(bad, ensure_ascii=True)[:60]}" for _, bad, where in BAD]


def test_every_field_is_tried_with_a_bad_value() -> None:
    assert {name for _, bad, _ in BAD for name in bad} >= FIELDS.keys()


@pytest.mark.parametrize(("base", "bad", "where"), BAD, ids=NAMES)
def test_a_bad_value_is_named_by_its_path_and_nothing_is_written(
    world: World, base: dict[str, Any], bad: dict[str, Any], where: str
) -> None:
    asked = {**base, "workingDir": str(world.root), **bad}
    assert paths(world.refused(asked)) == [f"process.{where}".rstrip(".")]


@pytest.mark.parametrize(("base", "bad", "where"), BAD, ids=NAMES)
def test_a_bad_value_in_a_change_is_named_likewise_and_nothing_is_changed(
    world: World, session: str, base: dict[str, Any], bad: dict[str, Any], where: str
) -> None:
    before, command = world.holds(), {} if base is GENERIC else base
    answer = world.live.owner.patch(
        f"/v1/sessions/{session}",
        content=json.dumps({"process": {**command, **bad}, "force": True}),
        headers={"Content-Type": "application/json"},
    )
    assert paths(problems_of(answer)) == [f"process.{where}"]
    assert world.holds() == before


@pytest.mark.parametrize("process", [[], "claude", 7, True])
def test_what_is_no_configuration_at_all_is_refused(world: World, process: Any) -> None:
    assert paths(world.refused(process)) == ["process"]


@pytest.mark.parametrize("missing", [name for name, field in FIELDS.items() if field.required])
def test_what_must_be_said_is_missed(world: World, missing: str) -> None:
    asked = {**GENERIC, "workingDir": str(world.root)}
    del asked[missing]
    assert world.refused(asked) == [(f"process.{missing}", "is required")]


def test_text_that_is_no_unicode_is_refused(world: World) -> None:
    for bad in ({"environment": {"A": "\ud800"}}, {"command": ["\ud800"]}):
        assert world.refused({**GENERIC, "workingDir": str(world.root), **bad})[0][0] == ""


def test_problems_of_every_kind_are_told_at_once(world: World) -> None:
    problems = world.refused(
        {
            "command": ["", "x"],
            "workingDir": "/nowhere/at/all",
            "maxMemory": 5,
            "maxCpu": 0.01,
            "maxDuration": 1,
            "idleTimeout": 1,
            "model": "m",
            "temperature": 1,
            "environment": {"PATH": "x", "LD_X": "y", "FINE": "z"},
        },
        constraints={"maxRenewals": -1},
    )
    wanted = ["command.0", "workingDir", "maxMemory", "maxCpu", "maxDuration", "idleTimeout", "model", "temperature",
              "environment.PATH", "environment.LD_X"]  # fmt: skip
    assert paths(problems) == sorted(["constraints.maxRenewals", *(f"process.{name}" for name in wanted)])


def test_wrong_types_are_told_at_once_too(world: World) -> None:
    wrong = {name: {} if name not in {"environment", "budget"} else 7 for name in FIELDS}
    problems = world.refused({**wrong, "unknown": 1}, ttl=1, metadata=7)
    assert paths(problems) == sorted(["ttl", "metadata", "process.unknown", *(f"process.{name}" for name in FIELDS)])
    parts = {
        "command": ["cat", 7, "\0"], "workingDir": str(world.root), "environment": {"A": 1, "2": "x", "C": "\0"},
        "budget": {"maxTokens": 0, "maxCostUsd": -1, "x": 1},
    }  # fmt: skip
    assert paths(world.refused(parts)) == [
        "process.budget.maxCostUsd", "process.budget.maxTokens", "process.budget.x", "process.command.1",
        "process.command.2", "process.environment.2", "process.environment.A", "process.environment.C",
    ]  # fmt: skip


def test_no_problem_repeats_a_secret(world: World) -> None:
    asked = {**GENERIC, "workingDir": "/nowhere", "environment": {"PATH": "s3cret", "A": "s3cret"}}
    assert "s3cret" not in world.create(asked).text
    assert "s3cret" not in world.create({**asked, "oauthToken": "s3cret \n"}).text


# --- good values

GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (GENERIC, {"command": ["x"] * MAX_ARGUMENTS}),
    (GENERIC, {"command": ["cat", "x" * MAX_ARGUMENT, "", "가\n"]}),
    (GENERIC, {"workingDir": "/" + "x" * 4095}),
    (CLAUDE, {"systemPrompt": "x" * MAX_PROMPT}),
    (CLAUDE, {"systemPrompt": "가" * (MAX_PROMPT // 3)}),
    *((CLAUDE, {"maxTurns": turns}) for turns in (1, 1000)),
    *((CLAUDE, {"allowedTools": tools}) for tools in ([], ["Bash(git log:*,--stat)"], ["x" * 200] * 100)),
    *((CLAUDE, {"toolTimeout": seconds}) for seconds in (0, 300)),
    (GENERIC, {"environment": {}}),
    (GENERIC, {"environment": {f"A{number}": "" for number in range(200)}}),
    (GENERIC, {"environment": {"A": "x" * 32_768, "B": "x" * (MAX_ENVIRONMENT - 32_770)}}),
    (GENERIC, {"environment": {"Path": "", "LDX": "", "MY_LD_X": "", "DAEMONS": "", "_X": "한글\n", "PS": ""}}),
    *((GENERIC, {"oauthToken": token}) for token in ("!", "~" * 4096)),
    *((CLAUDE, {"model": model}) for model in ("m", "claude-sonnet-4-5[1m]", "x" * 200)),
    *((GENERIC, {"maxMemory": size}) for size in (0, MIN_MEMORY, 2**53 - 1)),
    *((GENERIC, {"maxCpu": cores}) for cores in (0, 0.05, 1, 4096)),
    *((GENERIC, {"maxDuration": seconds}) for seconds in (0, 60, 86_400)),
    *((GENERIC, {"idleTimeout": seconds}) for seconds in (0, 60, 604_800)),
    *((GENERIC, {"quietAfter": milliseconds}) for milliseconds in (50, 60_000)),
    *((CLAUDE, {"budget": budget}) for budget in ({}, {"maxCostUsd": 0.000001}, {"maxTokens": 1, "maxCostUsd": 1e6})),
    *((GENERIC, {"restart": when}) for when in ("never", "on-failure")),
    *((CLAUDE, {name: None}) for name, field in FIELDS.items() if not field.required),
]  # fmt: skip


@pytest.mark.parametrize(("base", "good"), GOOD)
def test_a_value_up_to_its_bounds_is_taken(base: dict[str, Any], good: dict[str, Any]) -> None:
    sent = msgspec.json.encode({**base, "workingDir": "/w", **good})
    assert msgspec.json.decode(sent, type=ProcessConfig).problems() == []


# --- where a process may work


def refused_at(world: World, directory: Path | str) -> str:
    ((path, message),) = world.refused({**GENERIC, "workingDir": str(directory)})
    assert path == "process.workingDir"
    return message


def works_in(world: World, directory: Path | str) -> str:
    """Return in which directory a process works that is asked to work in this one."""
    made = world.create({"command": ["pwd", "-P"], "workingDir": str(directory)})
    assert made.status_code == 201, made.text
    path = f"/v1/sessions/{made.json()['id']}"
    wait_for(lambda: world.live.owner.get(path).json()["state"] == "CLOSED")
    return str(world.live.owner.get(f"{path}/output?follow=false").text).rstrip("\n")


def test_the_root_itself_and_what_is_inside_of_it_may_be_worked_in(world: World) -> None:
    inside = world.root / "한글 dir" / "deeper"
    inside.mkdir(parents=True)
    assert works_in(world, world.root) == str(world.root.resolve())
    assert works_in(world, f"{inside}/../deeper/") == str(inside.resolve())


def test_outside_of_the_roots_nothing_may_start(world: World) -> None:
    outside = world.root.parent / "root-beside"
    outside.mkdir()
    for directory in (outside, world.root.parent, f"{world.root}/../root-beside", "/tmp", world.live.root):
        assert refused_at(world, directory) == "is not inside one of processes.workspace_roots"


def test_a_link_out_of_the_roots_leads_nowhere_and_one_within_them_does(world: World) -> None:
    outside = world.root.parent / "target"
    (outside / "inner").mkdir(parents=True)
    (world.root / "inner").mkdir()
    for name, target in (("out", outside), ("up", ".."), ("within", "inner"), ("chain", "out")):
        (world.root / name).symlink_to(target)
    for directory in ("out", "out/inner", "up", "chain", "within/../../target"):
        assert refused_at(world, world.root / directory) == "is not inside one of processes.workspace_roots"
    assert works_in(world, world.root / "within") == str((world.root / "inner").resolve())
    assert works_in(world, world.root / "out" / ".." / "root" / "inner") == str((world.root / "inner").resolve())


def test_what_is_missing_or_no_directory_is_told_apart(world: World) -> None:
    (world.root / "file").write_text("")
    (world.root / "dangling").symlink_to("nothing")
    (world.root / "loop").symlink_to("loop")
    assert refused_at(world, world.root / "missing") == "does not exist"
    assert refused_at(world, world.root / "dangling") == "does not exist"
    assert refused_at(world, world.root / "loop") == "does not exist"
    assert refused_at(world, world.root / "file") == "is not a directory"
    assert refused_at(world, world.root / "file" / "below") == "does not exist"
    assert refused_at(world, world.root / ("x" * 300)) == "does not exist"


def test_a_root_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    world = World(tmp_path / "of", DAEMON_PROCESSES_WORKSPACE_ROOTS=json.dumps([str(tmp_path / "link"), "/nowhere"]))
    try:
        for directory in ("real", "link"):
            assert works_in(world, tmp_path / directory) == str((tmp_path / "real").resolve())
        assert refused_at(world, world.root) == "is not inside one of processes.workspace_roots"
    finally:
        world.live.stop()


def test_without_roots_nothing_may_start(tmp_path: Path) -> None:
    world = World(tmp_path, DAEMON_PROCESSES_WORKSPACE_ROOTS="[]")
    try:
        assert refused_at(world, world.root) == "nothing may be started: processes.workspace_roots is empty"
        assert world.live.new_session(world.agent)["state"] == "READY"
    finally:
        world.live.stop()


def test_where_processes_are_switched_off_none_starts_and_sessions_go_on_without(tmp_path: Path) -> None:
    world = World(tmp_path, DAEMON_PROCESSES_ENABLED="false")
    try:
        ((path, message),) = world.refused({**GENERIC, "workingDir": str(world.root)})
        assert path == "process"
        assert "processes.enabled = true" in message
        assert world.live.new_session(world.agent, process=None)["state"] == "READY"
    finally:
        world.live.stop()


def test_a_change_is_held_to_the_roots_too(world: World, session: str) -> None:
    before = world.holds()
    for directory in (world.root.parent, "/tmp"):
        answer = world.live.owner.patch(f"/v1/sessions/{session}", json={"process": {"workingDir": str(directory)}})
        assert problems_of(answer) == [("process.workingDir", "is not inside one of processes.workspace_roots")]
    assert world.holds() == before


def test_only_a_session_that_was_made_with_a_process_has_a_configuration(world: World) -> None:
    plain = world.live.new_session(world.agent)["id"]
    for target, code in (
        (plain, "INVALID_STATE_TRANSITION"),
        ("01980e5a-7c00-7a2b-9c4d-5e6f708192a3", "SESSION_NOT_FOUND"),
    ):
        answer = world.live.owner.patch(f"/v1/sessions/{target}", json={"process": {"maxCpu": 1}})
        assert answer.json()["code"] == code
    assert world.live.owner.patch(f"/v1/sessions/{plain}", json={"userId": "u"}).status_code == 200


# --- secrets

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAME = st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,9}\Z")
CONFIGS = st.builds(
    ProcessConfig,
    command=st.just("claude") | st.lists(TEXT, min_size=1, max_size=4),
    working_dir=TEXT.map(lambda text: f"/w{text}"),
    system_prompt=st.none() | TEXT.map(lambda text: f"Be {text}"),
    max_turns=st.none() | st.integers(1, 1000),
    temperature=st.none() | st.floats(0, 2),
    allowed_tools=st.none() | st.lists(st.from_regex(r"\A[A-Za-z(*)]{1,9}\Z"), max_size=3),
    tool_timeout=st.none() | st.integers(0, 300),
    environment=st.none() | st.dictionaries(NAME, TEXT, min_size=1, max_size=4),
    oauth_token=st.none() | st.from_regex(r"\A[!-~]{1,40}\Z"),
    model=st.none() | st.from_regex(r"\A[a-z0-9.]{1,20}\Z"),
    max_memory=st.none() | st.integers(0, 2**53 - 1),
    max_cpu=st.none() | st.floats(0, 4096),
    max_duration=st.none() | st.integers(0, 86_400),
    idle_timeout=st.none() | st.integers(0, 604_800),
    quiet_after=st.none() | st.integers(50, 60_000),
    budget=st.none() | st.builds(Budget, max_cost_usd=st.none() | st.floats(0.01, 1e6), max_tokens=st.just(7)),
    restart=st.none() | st.sampled_from(["never", "on-failure"]),
)  # fmt: skip


@given(CONFIGS)
def test_a_configuration_comes_back_from_its_two_parts(config: ProcessConfig) -> None:
    text, secrets = split(config)
    stored = None if secrets is None else msgspec.json.decode(msgspec.json.encode(secrets), type=Secrets)
    assert join(text, stored) == config
    assert (secrets is None) == (config.environment is None and config.oauth_token is None)


@given(CONFIGS, st.from_regex(r"\A[A-Za-z0-9]{12,30}\Z"))
def test_the_part_that_is_stored_readable_holds_no_secret(config: ProcessConfig, secret: str) -> None:
    assume(secret not in split(config)[0])  # by chance
    hidden = {**(config.environment or {}), "SECRET": secret, f"NAME_{secret}": "x"}
    config = msgspec.structs.replace(config, environment=hidden, oauth_token=secret)
    text, secrets = split(config)
    assert secret not in text
    assert not {"environment", "oauthToken"} & json.loads(text).keys()
    assert None not in json.loads(text).values()
    patch = PatchProcess(environment=hidden, oauth_token=secret)
    assert not any(secret in repr(one) for one in (config, secrets, patch))


def test_no_environment_and_an_empty_one_are_the_same() -> None:
    config = ProcessConfig(command="claude", working_dir="/w", environment={})
    assert split(config)[1] is None
    assert join(*split(config)) == msgspec.structs.replace(config, environment=None)


@given(CONFIGS, CONFIGS)
def test_a_change_of_every_field_is_the_other_configuration(one: ProcessConfig, other: ProcessConfig) -> None:
    whole = {name: getattr(other, name) for name in ProcessConfig.__struct_fields__}
    assert PatchProcess(**whole).applied_to(one) == other
    assert PatchProcess().applied_to(one) == one


def test_secrets_are_in_no_answer_and_in_no_file(world: World) -> None:
    secrets = {"environment": {"KEY": "s3cret-value"}, "oauthToken": "s3cret-token"}
    made = world.create({**GENERIC, "workingDir": str(world.root), **secrets})
    path = f"/v1/sessions/{made.json()['id']}"
    shown = [made.text, world.live.owner.get(path).text, world.live.owner.get("/v1/owner/processes").text]
    shown += [world.live.agent(made.json()["token"]).get("/v1/session").text, json.dumps(world.live.events())]
    shown.append(world.live.owner.patch(path, json={"process": {"oauthToken": "s3cret-second"}, "force": True}).text)
    assert not [text for text in shown if "s3cret" in text]
    world.live.owner.post(f"{path}/kill").raise_for_status()
    files = [Path(at) / name for at, _, names in os.walk(world.live.root) for name in names]
    assert not [file for file in files if file.is_file() and b"s3cret" in file.read_bytes()]
