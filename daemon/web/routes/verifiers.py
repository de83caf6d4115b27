"""Owner routes of verifiers."""

from litestar import delete, get, post
from litestar.response import Response

from daemon.domain.errors import VERIFIER_NOT_FOUND
from daemon.domain.oauth_views import AddedVerifier, VerifierView
from daemon.domain.requests import AddVerifier
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, described
from daemon.web.routes.common import AnyRequest, about, origin, paged, path_id

_PATH = "/v1/owner/verifiers"
_ONE = f"{_PATH}/{{verifier_id:str}}"


@post(_PATH, opt=described("Add a service that may ask about tokens", AddedVerifier, body=AddVerifier))
async def add_verifier(request: AnyRequest) -> AddedVerifier:
    """Add a verifier; its credential is shown this once."""
    return await about(request).services.verifiers.add(await body(request, AddVerifier), origin(request))


@get(_PATH, opt=described("List verifiers", list[VerifierView], parameters=PAGE, listed=True))
async def list_verifiers(request: AnyRequest) -> Response[list[VerifierView]]:
    """List verifiers, newest first, revoked ones too."""
    await no_body(request)
    query = Query(request)
    page = query.page()
    query.close()
    return paged(request, await about(request).services.verifiers.find(page))


@get(_ONE, opt=described("Show a verifier", VerifierView, errors=(VERIFIER_NOT_FOUND,)))
async def show_verifier(request: AnyRequest) -> VerifierView:
    """Show a verifier."""
    await no_body(request)
    return await about(request).services.verifiers.get(path_id(request, "verifier_id"))


@delete(
    _ONE,
    status_code=200,
    opt=described("Refuse a verifier's credential for good", VerifierView, errors=(VERIFIER_NOT_FOUND,)),
)
async def revoke_verifier(request: AnyRequest) -> VerifierView:
    """Revoke a verifier; repeated, nothing changes."""
    verifier_id = path_id(request, "verifier_id")
    await no_body(request)
    return await about(request).services.verifiers.revoke(verifier_id, origin(request))


HANDLERS = [add_verifier, list_verifiers, show_verifier, revoke_verifier]
