"""What goes wrong between this service and its API server. `may_pass` says whether trying again can help."""

from __future__ import annotations


class IpreserveError(Exception):
    """Any failure this package raises on purpose."""

    may_pass = True


class Misconfigured(IpreserveError):
    """A setting, a kubeconfig, or a label selector makes no sense; the message names it and what would."""

    may_pass = False


class Unreachable(IpreserveError):
    """The API server did not answer in time."""


class ApiError(IpreserveError):
    """The API server refused. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.may_pass = status in (408, 409, 429) or status >= 500


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: somebody wrote in between, or the object is there already."""


class StillRunning(IpreserveError):
    """Something cannot be removed beside a service that runs; what blocks is gone already."""

    may_pass = False

    def __init__(self, message: str) -> None:
        super().__init__(
            f"{message}. The webhook configurations are removed, so nothing is blocked; the rest is still there. End "
            f"it, then uninstall again."
        )


class Expired(ApiError):
    """410: a watch's position is too old."""


class NotStored(IpreserveError):
    """The API server reported success and did not store what was sent."""


class NoCalico(IpreserveError):
    """No kind IPReservation is served here."""


class CannotRecord(IpreserveError):
    """A reservation could not be written within its deadline."""
