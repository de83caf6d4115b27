"""The OpenAPI document: valid, complete, and what the server really does."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from daemon.domain.errors import CATALOGUE
from tests.support.live import PASSWORD, LiveDaemon
from tests.support.oauth import Service
from tests.web.test_route_table import DOCUMENT


def examples() -> list[tuple[str, Any, Any]]:
    found = []
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                for media in body.get("content", {}).values():
                    values = [media["example"]] if "example" in media else []
                    values += [one["value"] for one in media.get("examples", {}).values()]
                    assert values, f"{where} has a body without an example"
                    found += [(where, media["schema"], value) for value in values]
    return found


def test_every_example_is_valid_by_its_own_schema() -> None:
    for where, schema, value in examples():
        validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        assert [error.message for error in validator.iter_errors(value)] == [], where


def test_every_code_of_the_catalogue_is_documented_on_some_route() -> None:
    documented = {
        code
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for media in response.get("content", {}).values()
        for code in media.get("examples", {})
    }
    assert {kind.code for kind in CATALOGUE} <= documented


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {"DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "1000", "DAEMON_SERVER_METRICS": "true"}
    live = LiveDaemon(tmp_path_factory.mktemp("schema") / "home", **settings)
    yield live
    live.stop()


def patternless(node: Any) -> Any:
    """Return the document without patterns of texts.

    To find long texts that match one takes schemathesis seconds each, at collection and in every worker; without them
    it sends control characters too, and gets the 400 that is documented.
    """
    if isinstance(node, dict):
        return {
            key: patternless(value) for key, value in node.items() if key != "pattern" or not isinstance(value, str)
        }
    return [patternless(one) for one in node] if isinstance(node, list) else node


SCHEMA = schemathesis.openapi.from_dict(patternless(DOCUMENT))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
NEVER_CALLED = {"/v1/admin/shutdown", "/v1/admin/password", "/v1/owner/events", "/v1/session/events"}
"""They would end the server, or the owner's access to it; a stream has no end, and tests of its own."""


@SCHEMA.exclude(path=sorted(NEVER_CALLED)).parametrize()
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_what_its_document_says(case: schemathesis.Case, server: LiveDaemon) -> None:
    headers = {"X-Master-Password": PASSWORD}
    if case.operation.definition.raw["tags"] == ["agent"]:
        headers = {"Authorization": f"Bearer {server.new_session()['token']}"}
    if case.operation.definition.raw["tags"] == ["verifier"]:
        headers = {"Authorization": f"Bearer {Service(server, mayRevoke=True).credential}"}
    case.headers = {name: value for name, value in (case.headers or {}).items() if name == "Idempotency-Key"}
    case.call_and_validate(base_url=server.url, headers=headers, checks=CHECKS)
