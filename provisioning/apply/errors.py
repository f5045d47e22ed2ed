"""What can go wrong at the door to Kubernetes. The library's errors are chained as causes and never leak.

`retryable` answers the caller's only question: can the same call succeed later without anybody changing anything?
"""

from __future__ import annotations


class DoorError(Exception):
    """`message` is for people, `remedy` says what they can do, `code` is stable."""

    code = "kubernetes_error"
    retryable = True
    remedy = ""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or type(self).remedy


class Unreachable(DoorError):
    """No answer: network, name, or the API server is down."""

    code = "target_unreachable"
    remedy = "Check that the target's API server runs and that the worker can reach it; Berth tries again by itself."


class AnotherCluster(Unreachable):
    """What answers is not the cluster that was registered: nothing may be done to it."""

    code = "another_cluster"
    remedy = (
        "An administrator gives the target the kubeconfig of its own cluster again; or, if the cluster was built anew, "
        "accepts it: PATCH /api/v1/targets/<target> with its uid."
    )


class NoKubeconfig(DoorError):
    """The target's kubeconfig is missing or cannot be used."""

    code = "kubeconfig_missing"
    remedy = "An administrator puts the target's kubeconfig into BERTH_TARGETS_DIR as <target>.kubeconfig."


class Unauthorized(DoorError):
    """401: the credentials are no longer valid."""

    code = "credentials_expired"
    remedy = "An administrator replaces the target's kubeconfig with a current one; Berth picks it up by itself."


class Denied(DoorError):
    """403: the credentials are valid but lack a right, or a quota or policy refuses."""

    code = "forbidden_by_target"
    remedy = "An administrator grants the named right to Berth's user on the target, or raises the quota."


class Absent(DoorError):
    """404."""

    code = "absent"
    retryable = False


class Taken(DoorError):
    """409 on create: it exists."""

    code = "exists"
    retryable = False


class FieldConflict(DoorError):
    """409 on apply: another field manager owns fields we set. Never forced."""

    code = "field_conflict"
    retryable = False
    remedy = "Remove the other manager's change (kubectl get … --show-managed-fields names it), then try again."


class CredentialsMissing(DoorError):
    """The Secret by whose passwords a cluster's servers run is gone. Others would lock everybody out, Berth too."""

    code = "credentials_missing"
    retryable = True
    remedy = (
        "Bring the Secret back: docs/engines tells how to read it from a pod that runs. Until then it stays as it is."
    )


class Rejected(DoorError):
    """400 or 422: the API server does not take the object."""

    code = "rejected_by_target"
    retryable = False
    remedy = "This is a defect of Berth or a rule of the target (an admission policy). Show it to an administrator."


class Expired(DoorError):
    """410: a watch must begin anew."""

    code = "expired"


class Throttled(DoorError):
    """429 or 503: the API server asks for patience."""

    code = "target_busy"


class NamespaceTaken(DoorError):
    """A namespace of the tenant's name exists and is not Berth's."""

    code = "namespace_taken"
    retryable = False
