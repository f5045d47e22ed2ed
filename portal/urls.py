"""Every address of the web process. /healthz and /readyz are answered by portal.middleware.HealthMiddleware."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, re_path

from portal import oidc, problems, spa
from portal.api.schema import reference

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include("portal.api.urls")),
    path("api/docs", reference, name="reference"),
    re_path(r"^api(/.*)?$", problems.not_found),
    path("auth/oidc/login", oidc.begin, name="oidc-login"),
    path("auth/oidc/callback", oidc.callback, name="oidc-callback"),
    re_path(r"^auth(/.*)?$", problems.not_found),
    re_path(r"^static/", problems.not_found),
    re_path(r"^", spa.index, name="application"),
]

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.not_found
handler500 = problems.server_error
