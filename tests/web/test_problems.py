"""One shape of error, one status for each code."""

import msgspec
import pytest
from litestar.exceptions import ClientException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from daemon.domain import errors
from daemon.domain.errors import CATALOGUE, DaemonError, ErrorKind, invalid
from daemon.web.problems import STATUS, from_exception, render


def test_every_kind_of_the_catalogue_has_a_status_and_there_is_no_other() -> None:
    assert set(STATUS) == set(CATALOGUE)


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: f"{kind.code}-{kind.title[:20]}")
def test_every_kind_renders_as_the_problem_document_of_rfc_9457(kind: ErrorKind) -> None:
    problem = render(DaemonError(kind), instance="/v1/session", request_id="r-1")
    assert msgspec.json.decode(problem.body) == {
        "type": "urn:daemon:error:" + kind.code.lower().replace("_", "-"),
        "title": kind.title,
        "status": STATUS[kind],
        "detail": kind.title,
        "instance": "/v1/session",
        "code": kind.code,
        "requestId": "r-1",
        "retryable": kind.retryable,
        "hint": kind.hint,
    }
    assert problem.status == STATUS[kind]
    assert problem.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in problem.headers) == (problem.status == 401)


def test_a_suspended_agent_is_403_for_its_token_and_409_for_a_new_session() -> None:
    assert STATUS[errors.AGENT_SUSPENDED] == 403
    assert STATUS[errors.AGENT_NOT_ACTIVE] == 409
    assert errors.AGENT_SUSPENDED.code == errors.AGENT_NOT_ACTIVE.code


def test_details_and_every_invalid_field_are_listed() -> None:
    error = invalid(("name", "is missing"), ("constraints.maxRenewals", "must be 0-100"))
    document = msgspec.json.decode(render(error, instance="/", request_id="r").body)
    assert document["errors"] == [
        {"path": "name", "message": "is missing"},
        {"path": "constraints.maxRenewals", "message": "must be 0-100"},
    ]
    detailed = DaemonError(errors.AGENT_EXISTS, details={"agentId": "a"})
    assert msgspec.json.decode(render(detailed, instance="/", request_id="r").body)["details"] == {"agentId": "a"}


def test_a_challenge_names_the_error_only_to_those_who_sent_a_credential() -> None:
    error = DaemonError(errors.TOKEN_EXPIRED, 'expired "yesterday"\r\n\u00e9')
    sent = render(error, instance="/", request_id="r").headers["www-authenticate"]
    assert sent == 'Bearer realm="daemon", error="invalid_token", error_description="expired yesterday"'
    none = render(error, instance="/", request_id="r", credential=False).headers["www-authenticate"]
    assert none == 'Bearer realm="daemon"'


def test_the_owner_is_challenged_with_a_scheme_that_no_browser_prompts_for() -> None:
    problem = render(DaemonError(errors.INVALID_MASTER_PASSWORD), instance="/", request_id="r")
    assert problem.headers["www-authenticate"] == 'MasterPassword realm="daemon"'


def test_retry_after_is_sent_where_a_time_is_known() -> None:
    known = render(DaemonError(errors.RATE_LIMIT_EXCEEDED, retry_after=7), instance="/", request_id="r")
    unknown = render(DaemonError(errors.SHUTTING_DOWN), instance="/", request_id="r")
    assert known.headers["retry-after"] == "7"
    assert "retry-after" not in unknown.headers


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (NotFoundException(), errors.ROUTE_NOT_FOUND),
        (MethodNotAllowedException(), errors.METHOD_NOT_ALLOWED),
        (RequestEntityTooLarge(), errors.BODY_TOO_LARGE),
        (ClientException("odd"), errors.VALIDATION_ERROR),
        (ValueError("secret"), errors.INTERNAL_ERROR),
        (DaemonError(errors.AGENT_EXISTS), errors.AGENT_EXISTS),
    ],
)
def test_exceptions_of_the_framework_get_our_codes_and_all_others_say_nothing(exc: Exception, kind: ErrorKind) -> None:
    error = from_exception(exc)
    assert error.kind is kind
    assert "secret" not in error.detail


def test_method_not_allowed_names_the_methods() -> None:
    error = from_exception(MethodNotAllowedException(headers={"allow": "PUT, GET"}))
    assert render(error, instance="/", request_id="r").headers["allow"] == "GET, PUT"


def test_a_validation_error_of_the_framework_keeps_its_fields() -> None:
    exc = ValidationException("bad", extra=[{"key": "limit", "message": "must be a number"}])
    assert from_exception(exc).errors == [{"path": "limit", "message": "must be a number"}]
