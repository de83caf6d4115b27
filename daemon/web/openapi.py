"""The OpenAPI 3.1 document, made from what the routes say of themselves and from the types they use."""

from typing import Any

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from daemon import __version__
from daemon.domain import errors
from daemon.domain.body import Body
from daemon.domain.conversations import MAX_ID
from daemon.domain.errors import DaemonError, ErrorKind
from daemon.web.describe import Group, Operation, Parameter
from daemon.web.examples import example
from daemon.web.limits import EVENT_STREAM, FORM, PLAIN_TEXT
from daemon.web.problems import MEDIA_TYPE, STATUS, ProblemDocument, render

REF = "#/components/schemas/{name}"


class OpenAPI(msgspec.Struct):
    """The document itself, where a route answers with it."""

    openapi: str


_EVERYWHERE = (
    errors.VALIDATION_ERROR,
    errors.BAD_REQUEST,
    errors.HOST_NOT_ALLOWED,
    errors.ORIGIN_NOT_ALLOWED,
    errors.ROUTE_NOT_FOUND,
    errors.METHOD_NOT_ALLOWED,
    errors.NOT_ACCEPTABLE,
    errors.REQUEST_TIMEOUT,
    errors.BODY_TOO_LARGE,
    errors.URI_TOO_LONG,
    errors.UNSUPPORTED_MEDIA_TYPE,
    errors.RATE_LIMIT_EXCEEDED,
    errors.HEADERS_TOO_LARGE,
    errors.INTERNAL_ERROR,
    errors.SYSTEM_LOCKED,
    errors.SHUTTING_DOWN,
    errors.STORAGE_UNAVAILABLE,
)
_OWNER = (errors.INVALID_MASTER_PASSWORD, errors.MASTER_AUTH_LOCKED)
_AGENT = (
    errors.INVALID_TOKEN,
    errors.TOKEN_EXPIRED,
    errors.TOKEN_ROTATED,
    errors.TOKEN_REUSED,
    errors.SESSION_REVOKED,
    errors.AGENT_SUSPENDED,
    errors.SESSION_SUSPENDED,
    errors.CONSTRAINT_VIOLATED,
)
_VERIFIER = (errors.INVALID_VERIFIER,)
_OF_GROUP: dict[Group, tuple[ErrorKind, ...]] = {
    "public": (),
    "link": (),
    "owner": _OWNER,
    "agent": _AGENT,
    "either": (*_OWNER, *_AGENT),
    "verifier": _VERIFIER,
}
_BY_OWNER: list[dict[str, list[str]]] = [{"masterPassword": []}, {"masterPasswordB64": []}, {"ownerTicket": []}]
_BY_AGENT: list[dict[str, list[str]]] = [{"sessionToken": []}]
_SECURITY: dict[Group, list[dict[str, list[str]]]] = {
    "public": [],
    "link": [],
    "owner": _BY_OWNER,
    "agent": _BY_AGENT,
    "either": [*_BY_OWNER, *_BY_AGENT],
    "verifier": [{"verifierCredential": []}],
}
_SCHEMES = {
    "masterPassword": {"type": "apiKey", "in": "header", "name": "X-Master-Password"},
    "masterPasswordB64": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Master-Password-B64",
        "description": "Base64 of the password's UTF-8 bytes, for clients that cannot send them as they are.",
    },
    "ownerTicket": {"type": "http", "scheme": "bearer", "description": "`wai_own_…` of `POST /v1/owner/login`."},
    "sessionToken": {"type": "http", "scheme": "bearer", "bearerFormat": "wai_sess_ + JWT"},
    "verifierCredential": {
        "type": "http",
        "scheme": "bearer",
        "description": "`wai_verf_…` of `POST /v1/owner/verifiers`.",
    },
}


def document(app: Litestar) -> bytes:
    """Return the document of an app, made once."""
    made: bytes | None = app.state.get("openapi")
    if made is None:
        made = app.state["openapi"] = msgspec.json.encode(build(app))
    return made


def build(app: Litestar) -> dict[str, Any]:
    """Build the document from every route that the app serves."""
    paths: dict[str, dict[str, Any]] = {}
    types: set[Any] = {ProblemDocument}
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        path = route.path_format.replace(":str", "")
        for method, (handler, _) in sorted(route.route_handler_map.items()):
            paths.setdefault(path, {})[method.lower()] = _operation(path, handler, types)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "daemon",
            "version": __version__,
            "description": "The session authority for the AI agents on this machine. Times are Unix seconds.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:3100"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": _schemas(types), "securitySchemes": _SCHEMES},
    }


def _operation(path: str, handler: HTTPRouteHandler, types: set[Any]) -> dict[str, Any]:
    described: Operation = handler.opt["describes"]
    group: Group = handler.opt["group"]
    if described.answer is not None and not (described.html or described.lines or described.metrics):
        types.add(described.answer)
    made: dict[str, Any] = {
        "operationId": handler.handler_name,
        "summary": described.summary,
        "tags": [group],
        "security": _SECURITY[group],
        "parameters": [*_path_parameters(path), *map(_parameter, described.parameters)],
        "responses": _responses(described, group, handler.status_code, path),
    }
    for media_type, body in (("application/json", described.body), (FORM, described.form)):
        if body is not None:
            types.add(body)
            made["requestBody"] = _request_body(body, media_type)
    return made


_CONVERSATION_ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_ID,
    "description": "Chosen by the agent, percent-encoded in the path, also each `/` (`%2F`); never normalised.",
}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": _path_schema(name)} for name in names]


def _path_schema(name: str) -> dict[str, Any]:
    if name == "conversationId":
        return _CONVERSATION_ID
    return {"type": "string", "format": "uuid"} if name.endswith("_id") else {"type": "string"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.meaning,
        "schema": parameter.schema,
    }


def _request_body(body: type[Body], media_type: str) -> dict[str, Any]:
    required = any(field.required for field in msgspec.structs.fields(body))
    content = {"schema": {"$ref": REF.format(name=body.__name__)}, "example": example(body)}
    return {"required": required, "content": {media_type: content}}


def _responses(described: Operation, group: Group, status: int, path: str) -> dict[str, Any]:
    success: dict[str, Any] = {"description": described.summary}
    if described.answer is not None:
        success["content"] = _content(described)
    if described.listed:
        success["headers"] = {"Link": {"description": "The next page, if any.", "schema": {"type": "string"}}}
    made = {str(code): success for code in (status, *described.also)}
    for code, kinds in sorted(_by_status((*described.errors, *_OF_GROUP[group], *_EVERYWHERE)).items()):
        known = made.setdefault(str(code), {"description": ", ".join(dict.fromkeys(kind.code for kind in kinds))})
        content = known.setdefault("content", {})
        known["content"] = content | {MEDIA_TYPE: _problem_content(kinds, path)}
    return made


def _content(described: Operation) -> dict[str, Any]:
    if described.html:
        return {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…"}}
    if described.lines:
        return _LINES
    if described.metrics:
        return _METRICS
    return _stream_content(described) if described.streams else _json_content(described)


_LINES: dict[str, Any] = {
    EVENT_STREAM.decode(): {
        "schema": {
            "type": "string",
            "description": "Server-Sent Events; `id` is the byte offset after the line, `data` the line, `event` is "
            "`json` or `text`, for a piece of a line over 1 MiB `piece`, for its last one `last-piece`.",
        },
        "example": 'id: 27\nevent: json\ndata: {"type":"system","a":"b"}\n\n',
    },
    PLAIN_TEXT.decode(): {"schema": {"type": "string"}, "example": "the bytes as they were written"},
}

_METRICS: dict[str, Any] = {
    media_type: {"schema": {"type": "string"}, "example": "# TYPE daemon_kill_switch_on gauge\n" + rest}
    for media_type, rest in {
        PLAIN_TEXT.decode(): "daemon_kill_switch_on 0.0\n",
        "application/openmetrics-text": "daemon_kill_switch_on 0.0\n# EOF\n",
    }.items()
}


def _json_content(described: Operation) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([described.answer], ref_template=REF)
    return {"application/json": {"schema": schema, "example": example(described.answer)}}


def _stream_content(described: Operation) -> dict[str, Any]:
    shown = example(described.answer)
    name = described.answer.__name__
    schema = {
        "type": "string",
        "description": f"Server-Sent Events; `id` is the sequence number, `event` the type, `data` one {name} as JSON.",
        "contentSchema": {"$ref": REF.format(name=name)},
    }
    text = f"id: {shown['seq']}\nevent: {shown['type']}\ndata: {msgspec.json.encode(shown).decode()}\n\n"
    return {EVENT_STREAM.decode(): {"schema": schema, "example": text}}


def _by_status(kinds: tuple[ErrorKind, ...]) -> dict[int, list[ErrorKind]]:
    grouped: dict[int, list[ErrorKind]] = {}
    for kind in dict.fromkeys(kinds):
        grouped.setdefault(STATUS[kind], []).append(kind)
    return grouped


def _problem_content(kinds: list[ErrorKind], path: str) -> dict[str, Any]:
    examples = {
        kind.code: {"value": msgspec.json.decode(render(DaemonError(kind), instance=path, request_id="r-1").body)}
        for kind in kinds
    }
    return {"schema": {"$ref": REF.format(name=ProblemDocument.__name__)}, "examples": examples}


def _schemas(types: set[Any]) -> dict[str, Any]:
    ordered = sorted(types, key=str)
    _, components = msgspec.json.schema_components(ordered, ref_template=REF)
    return dict(sorted(components.items()))
