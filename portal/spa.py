"""The single-page application: every address that is neither API nor a file answers with its index.html.

The files it names are served by WhiteNoise (settings.WHITENOISE_ROOT); this view is for the addresses its own router
knows, which a reload or a link must reach too.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from portal.problems import page


@require_safe
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    """index.html, never cached, since it names the hashed files of this build; 404 for a file that is not there."""
    last = request.path.rsplit("/", 1)[-1]
    if "." in last and request.path != "/index.html":
        return HttpResponse(page("Not found", [f"There is no file {request.path}."]), status=404)
    try:
        content = (settings.FRONTEND_DIST / "index.html").read_bytes()
    except FileNotFoundError:
        text = page(
            "The page is not built",
            [
                "The API works; the single-page application was not built yet.",
                "Build it with: make frontend. Then start the web process again.",
                "The API reference is at /api/docs.",
            ],
        )
        return HttpResponse(text, status=503)
    return HttpResponse(content, headers={"Cache-Control": "no-cache"})
