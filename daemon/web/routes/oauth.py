"""Routes for other services, as OAuth 2.0 has them: introspection (RFC 7662) and revocation (RFC 7009) of tokens."""

from litestar import post
from litestar.types import ASGIApp

from daemon.domain.errors import FORM_EXPECTED, REVOCATION_NOT_ALLOWED
from daemon.domain.oauth_views import Introspection, RevokedToken
from daemon.domain.requests import TokenForm
from daemon.web.decode import form
from daemon.web.describe import described
from daemon.web.routes.common import AnyRequest, about, encoded, origin, verifier


@post(
    "/v1/oauth/introspect",
    status_code=200,
    opt=described("Is this token good, and whose is it?", Introspection, form=TokenForm, errors=(FORM_EXPECTED,)),
)
async def introspect_token(request: AnyRequest) -> ASGIApp:
    """Tell whether a token is good; that is no use of it."""
    asked = await form(request, TokenForm)
    return encoded(await about(request).services.oauth.introspect(asked.token), 200)


@post(
    "/v1/oauth/revoke",
    status_code=200,
    opt=described(
        "End a token's session", RevokedToken, form=TokenForm, errors=(FORM_EXPECTED, REVOCATION_NOT_ALLOWED)
    ),
)
async def revoke_token(request: AnyRequest) -> RevokedToken:
    """End the session of a token; what is no token is no error."""
    asked = await form(request, TokenForm)
    return await about(request).services.oauth.revoke(verifier(request), asked.token, origin(request))


HANDLERS = [introspect_token, revoke_token]
