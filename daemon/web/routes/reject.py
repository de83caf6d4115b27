"""The reject link: its token is the credential. Looking changes nothing, since programs follow links in messages."""

from litestar import get, post
from litestar.response import Response

from daemon.web import pages
from daemon.web.decode import no_body
from daemon.web.describe import described
from daemon.web.limits import FORM
from daemon.web.pages import Locale
from daemon.web.routes.common import AnyRequest, about, origin


@get("/reject/{token:str}", opt=described("Show what a link would reject", str, html=True, also=(410,)))
async def show_rejection(request: AnyRequest) -> Response[str]:
    """Show what would be rejected, or that there is nothing to reject any more."""
    await no_body(request)
    seen = await about(request).services.answers.show(request.path_params["token"])
    locale = _locale(request)
    return _page(pages.ask(seen, locale), 200) if seen else _page(pages.gone(locale), 410)


@post("/reject/{token:str}", status_code=200, opt=described("Reject a renewal, once", str, html=True, also=(410,)))
async def reject_renewal(request: AnyRequest) -> Response[str]:
    """Revoke the session whose renewal the link is about; a form's body is ignored."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != FORM:
        await no_body(request)
    outcome = await about(request).services.answers.reject(request.path_params["token"], origin(request))
    return _page(pages.answered(outcome, _locale(request)), 200 if outcome == "rejected" else 410)


def _locale(request: AnyRequest) -> Locale:
    return about(request).services.notifications.settings.locale


def _page(text: str, status: int) -> Response[str]:
    return Response(text, status_code=status, media_type="text/html", headers=pages.HEADERS)


HANDLERS = [show_rejection, reject_renewal]
