"""`daemon verifier`: from a name to a credential that a service can use, shown once and never again."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.oauth import INTROSPECT, REVOKE


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    started = DaemonProcess(tmp_path_factory.mktemp("verifiers") / "home")
    yield started
    started.stop()
    assert "wai_verf_" not in Path(started.ready["logFile"]).read_text()


def ask(daemon: DaemonProcess, path: str, credential: str, token: str) -> httpx.Response:
    """Ask as the service that has a credential."""
    headers = {"Authorization": f"Bearer {credential}"}
    return httpx.post(f"{daemon.url}{path}", data={"token": token}, headers=headers, trust_env=False)


def test_a_verifier_is_added_listed_shown_and_revoked_by_its_name(daemon: DaemonProcess) -> None:
    token = daemon.cli("agent", "add", "researcher", "--session", "--json").json()["session"]["token"]
    added = daemon.cli("verifier", "add", "gateway")
    assert (added.code, added.err) == (0, "note: the credential is shown only now\n")
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in added.out.splitlines())
    assert list(shown) == ["id", "name", "may revoke", "credential"]
    assert (shown["name"], shown["may revoke"]) == ("gateway", "no")
    assert ask(daemon, INTROSPECT, shown["credential"], token).json()["active"] is True
    assert ask(daemon, REVOKE, shown["credential"], token).status_code == 403
    listed = daemon.cli("verifier", "list").out
    assert listed.splitlines()[0].split() == ["ID", "NAME", "MAY", "REVOKE", "CREATED", "LAST", "USED", "REVOKED"]
    assert listed.splitlines()[1].split()[:3] == [shown["id"], "gateway", "no"]
    by_id = daemon.cli("verifier", "show", shown["id"], "--json").json()
    assert by_id == daemon.cli("verifier", "show", "gateway", "--json").json()
    assert daemon.cli("verifier", "revoke", "gateway").code == 0
    assert ask(daemon, INTROSPECT, shown["credential"], token).status_code == 401
    again = daemon.cli("verifier", "revoke", "gateway", "--json")
    assert (again.code, again.json()["revokedAt"] is not None) == (0, True)
    everything = "".join(daemon.cli("verifier", *one).out for one in (["list", "--json"], ["show", "gateway"]))
    assert "wai_verf_" not in everything


def test_the_credential_comes_alone_as_json_or_as_lines_to_eval(daemon: DaemonProcess) -> None:
    token = daemon.cli("agent", "add", "coder", "--session", "--json").json()["session"]["token"]
    alone = daemon.cli("verifier", "add", "alone", "--may-revoke", "--output", "credential")
    assert alone.err == ""
    whole = daemon.cli("verifier", "add", "whole", "--json").json()
    assert whole == {**whole, "name": "whole", "mayRevoke": False}
    assert daemon.cli("verifier", "add", "too", "--output", "json").json()["name"] == "too"
    lines = daemon.cli("verifier", "add", "shell", "--output", "env").out.splitlines()
    assert lines[1] == f"export DAEMON_URL={daemon.url};"
    exported = lines[0].removeprefix("export DAEMON_VERIFIER_CREDENTIAL=").removesuffix(";")
    for credential in (whole["credential"], exported, alone.out.strip()):
        assert ask(daemon, INTROSPECT, credential, token).json()["active"] is True
    assert ask(daemon, REVOKE, alone.out.strip(), token).status_code == 200
    assert ask(daemon, INTROSPECT, exported, token).json() == {"active": False}


def test_a_name_that_was_revoked_can_be_used_again_and_an_ambiguous_one_exits_2(daemon: DaemonProcess) -> None:
    first = daemon.cli("verifier", "add", "twin", "--json").json()["id"]
    daemon.cli("verifier", "revoke", "twin")
    ids = [daemon.cli("verifier", "add", "twin", "--json").json()["id"]]
    assert daemon.cli("verifier", "show", "twin", "--json").json()["id"] == ids[0] != first
    ids.append(daemon.cli("verifier", "add", "twin", "--json").json()["id"])
    twice = daemon.cli("verifier", "revoke", "twin")
    assert (twice.code, twice.err.count("\n")) == (2, 1)
    assert [one for one in ids if one not in twice.err] == []
    assert first not in twice.err
    unknown = daemon.cli("verifier", "revoke", "nobody")
    assert (unknown.code, unknown.err) == (
        1,
        "error: No verifier is called nobody — list them: daemon verifier list\n",
    )


@pytest.mark.parametrize("arguments", [["add"], ["add", ""], ["add", "a", "--output", "nonsense"], ["nonsense"]])
def test_what_cannot_be_meant_is_one_line(daemon: DaemonProcess, arguments: list[str]) -> None:
    ended = daemon.cli("verifier", *arguments)
    assert (ended.code in {1, 2}, ended.out, ended.err.count("\n")) == (True, "", 1)
