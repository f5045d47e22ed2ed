"""Every `code` an answer of the API can carry. Codes are stable: clients may rely on them.

A test compares this table with the codes used in the source (portal/tests/test_problems.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One kind of problem: `title` is short, `meaning` says when it comes, `remedy` what to do about it."""

    status: int
    title: str
    meaning: str
    remedy: str


CODES: Mapping[str, Code] = {
    # The door itself.
    "bad_request": Code(
        400,
        "Bad request",
        "The request could not be understood as HTTP for this host.",
        "Check the address and the Host header; an administrator sets BERTH_ALLOWED_HOSTS.",
    ),
    "malformed_json": Code(
        400,
        "Malformed JSON",
        "The body is not JSON, or holds something JSON or the database cannot carry (NaN, NUL characters).",
        "Mend the body at the line and column named in `detail`.",
    ),
    "unauthenticated": Code(
        401,
        "Not signed in",
        "The request carries neither a valid session nor a valid token; tokens expire and can be revoked.",
        "Sign in with POST /api/v1/session, or send `Authorization: Bearer brt_…` with a token that is still valid.",
    ),
    "sign_in_failed": Code(
        401,
        "Wrong user name or password",
        "No active user has this name and password. The answer is the same whichever of them is wrong.",
        "Check both. An administrator can set a new password.",
    ),
    "csrf_failed": Code(
        403,
        "CSRF check failed",
        "A change by session needs the CSRF token, so that other sites cannot make it in your name.",
        "GET /api/v1/session sets the cookie `csrftoken`; send its value in the header X-CSRFToken.",
    ),
    "permission_denied": Code(403, "Not allowed", "You may not do this.", "Ask somebody whose role allows it."),
    "role_required": Code(
        403,
        "Your role does not allow this",
        "You may see the tenant, but the change needs a higher role: owner, developer, viewer, in this order.",
        "Ask an owner of the tenant to do it, or to give you the role.",
    ),
    "scope_required": Code(
        403,
        "The token's scope does not allow this",
        "Changes need the scope `write`; who belongs to a tenant, and platform administration, `admin`.",
        "Use a token with the scope that `detail` names.",
    ),
    "grant_required": Code(
        403,
        "The cluster is not shared with you for this",
        "The cluster was shared with you to read; its credentials and snippets need the grant `use`.",
        "Ask an owner of its tenant to share it for use.",
    ),
    "last_owner": Code(
        409,
        "The last owner stays",
        "A tenant must keep at least one active person who owns it.",
        "Make somebody else an owner first.",
    ),
    "last_administrator": Code(
        409,
        "The last administrator stays",
        "At least one active person must administer the platform.",
        "Make somebody else a platform administrator first.",
    ),
    "own_account": Code(
        409,
        "Nobody switches themselves off",
        "Who switched themselves off by mistake could not undo it.",
        "Ask another platform administrator to do it.",
    ),
    "already_member": Code(
        409,
        "The person is a member already",
        "One person has one role in a tenant, and sees all its clusters.",
        "Change the role of the member instead.",
    ),
    "slug_taken": Code(409, "The slug is in use", "There is a tenant of this slug.", "Choose another slug."),
    "tenant_not_empty": Code(
        409,
        "The tenant is not empty",
        "It has clusters, or the history of deleted ones.",
        "Delete its clusters first. To keep the history and end all changes, suspend it instead.",
    ),
    "invitation_unusable": Code(
        404,
        "The invitation cannot be used",
        "It is unknown, was used or withdrawn, has expired, or who made it may not invite any more.",
        "Ask an owner of the tenant for a new one.",
    ),
    "session_required": Code(
        403,
        "Needs a signed-in session",
        "Tokens are made and invitations accepted by signed-in people only: a leaked token must not prolong its life.",
        "Sign in with POST /api/v1/session and repeat.",
    ),
    "tenant_suspended": Code(
        403,
        "The tenant is suspended",
        "A platform administrator suspended the tenant: its clusters run on, but nothing can be changed.",
        "Ask a platform administrator why, and to lift the suspension.",
    ),
    "not_found": Code(
        404,
        "Not found",
        "There is no such thing, or you may not see it: the answer is the same for both.",
        "Check the address (no slash at the end), the tenant and the name.",
    ),
    "method_not_allowed": Code(
        405, "Method not allowed", "The address exists, but not with this method.", "See the header Allow."
    ),
    "not_acceptable": Code(
        406, "Not acceptable", "The API answers in JSON only.", "Send `Accept: application/json` or no Accept header."
    ),
    "request_timeout": Code(
        408, "The body did not arrive", "The connection broke or stalled while the body was sent.", "Repeat it."
    ),
    "stale_revision": Code(
        412,
        "Changed in the meantime",
        "If-Match named another revision than the present one, whose ETag is in the answer.",
        "Read the object again, repeat the change on the new state, and send its ETag in If-Match.",
    ),
    "too_large": Code(413, "Body too large", "The body exceeds the limit named in `detail`.", "Send less."),
    "unsupported_media_type": Code(
        415,
        "Unsupported media type",
        "The API reads JSON only.",
        "Send `Content-Type: application/json` (for PATCH also application/merge-patch+json).",
    ),
    "invalid": Code(
        422,
        "Some values are wrong",
        "The request was understood but breaks a rule; `errors` names every wrong field.",
        "Change the fields named in `errors` and send it again.",
    ),
    "rate_limited": Code(
        429,
        "Too many requests",
        "Too many requests or failed attempts of one caller or tenant came in a short time; see RateLimit-Policy.",
        "Wait the number of seconds in the header Retry-After.",
    ),
    "internal_error": Code(
        500,
        "Internal error",
        "Berth failed to answer. The cause is in its log under the request id.",
        "Repeat it; with an Idempotency-Key a repeat is safe. If it stays, give the request id to your administrator.",
    ),
    "too_many_streams": Code(
        503,
        "Too many streams of changes",
        "Each stream of /changes holds a thread of the portal, so their number is bounded, in all and per person.",
        "Close other tabs or programs that listen, or ask now and then instead of listening.",
    ),
    "database_unavailable": Code(
        503,
        "The database does not answer",
        "Berth cannot reach its database. Clusters run on.",
        "Repeat it in a few seconds; with an Idempotency-Key a repeat is safe.",
    ),
    # Repeated requests.
    "idempotency_key_required": Code(
        400,
        "Idempotency-Key is missing",
        "Callers with a token must send an Idempotency-Key when they create a cluster, so that a repeat is safe.",
        "Send a fresh random value per intended change, and the same value when you repeat the request.",
    ),
    "idempotency_key_invalid": Code(
        400,
        "Idempotency-Key is not usable",
        "The key must be 1 to 200 printable ASCII characters.",
        "Send a UUID, for example.",
    ),
    "idempotency_key_reused": Code(
        422,
        "Idempotency-Key was used for another request",
        "The same key came with another method, address or body before.",
        "Use a fresh key for every intended change.",
    ),
    "already_made": Code(
        409,
        "It was made by an earlier request with this key",
        "The request was carried out before. Its answer held a secret, which Berth does not keep and cannot repeat.",
        "If the first answer was lost, revoke or withdraw what it made, and make another with a fresh key.",
    ),
    "idempotency_in_progress": Code(
        409,
        "The first request with this key is still under way",
        "A request with the same Idempotency-Key has not ended within the time a repeat waits for it.",
        "Repeat it in a moment.",
    ),
    "name_taken": Code(
        409,
        "The name is in use",
        "The tenant already has a cluster of this name.",
        "Choose another name, or use the cluster that is there.",
    ),
    "cluster_paused": Code(
        409,
        "The cluster is paused",
        "Somebody has paused its reconcile: Berth only watches it, and takes no change but its deletion.",
        "Read `paused` of the cluster: who, since when and why. POST …/resume ends it.",
    ),
    "not_paused": Code(
        409,
        "The cluster is not paused",
        "There is nothing to resume: Berth reconciles the cluster.",
        "Nothing has to be done.",
    ),
    "cannot_rebalance": Code(
        409,
        "Masters cannot be made even",
        "There is nothing that could take over, such as without replicas; `detail` says why.",
        "Add replicas to the shards first.",
    ),
    "nothing_lost": Code(
        409,
        "Nothing is lost for certain",
        "Only data that is gone can be accepted as lost: every member answers, and nobody has a copy. It may still "
        "come back, or was never lost.",
        "See `causes` and `loss` of the cluster.",
    ),
    "operation_in_progress": Code(
        409,
        "Another operation runs",
        "A cluster is changed by one operation at a time; `detail` names the one under way.",
        "Follow it with GET /api/v1/operations/{operation}?wait=30 and repeat the request when it has ended.",
    ),
    "being_deleted": Code(
        409,
        "The cluster is to be deleted",
        "Its deletion was asked for and has not succeeded; nothing else can be changed any more.",
        "Ask for the deletion again, or order a new cluster.",
    ),
    "volumes_kept": Code(
        409,
        "Volumes of a deleted cluster are in the way",
        "A deleted cluster of this name left its volumes; a new one would start on their data.",
        "Choose another name, or delete the old volumes: DELETE /api/v1/tenants/{tenant}/quota/kept-volumes/{id}.",
    ),
    "plan_exists": Code(
        409, "The name is in use", "There is a plan of this name.", "Choose another name, or change the plan."
    ),
    "plan_in_use": Code(
        409,
        "Clusters were ordered by the plan",
        "Clusters that are still there name the plan, so that it can be told what they were ordered as.",
        "PATCH the plan with `offered` false: nobody can order by it any more.",
    ),
    "plan_built_in": Code(
        409,
        "The plan comes with Berth",
        "Plans that come with Berth are made again at its next start.",
        "PATCH the plan with `offered` false: nobody can order by it any more.",
    ),
    "quota_exceeded": Code(
        409,
        "It does not fit the tenant's quota",
        "The order or change would pass a limit of the tenant; `violations` names each limit with what is used, "
        "reserved and asked for. Nothing was written.",
        "Ask for less, delete what is not needed, or ask a platform administrator to raise the limit.",
    ),
    "volumes_gone": Code(
        409,
        "There are no kept volumes",
        "The cluster was not deleted with its volumes kept, or they are being removed already.",
        "GET /api/v1/tenants/{tenant}/quota shows what still counts.",
    ),
    "operation_ended": Code(
        409,
        "The operation has ended",
        "Only an operation that is queued or running can be canceled.",
        "Nothing is left to cancel; retry it if it failed.",
    ),
    "not_cancelable": Code(
        409,
        "The operation cannot be canceled",
        "Deletions are not canceled: what they removed is gone.",
        "Let it end. Volumes are kept unless their deletion was asked for.",
    ),
    "not_retryable": Code(
        409,
        "The operation cannot be retried",
        "Only the last operation of a cluster can be retried, and only when it failed or was canceled.",
        "See `detail`; GET …/operations lists the cluster's operations, newest first.",
    ),
    "gate_not_waited_at": Code(
        409,
        "The operation does not wait at that gate",
        "A health gate can be overridden while the operation waits at it; by now it has gone on, or waits at another.",
        "Read the operation again, and override the gate in its `gate`, if that is still wanted.",
    ),
    "gate_guards_data": Code(
        409,
        "The gate guards data",
        "Going on would lose what only the member that is waited for has; nobody may order that.",
        "Mend what `detail` names; the operation goes on by itself then.",
    ),
    "target_taken": Code(
        409,
        "The target's name is in use",
        "There is a target of this name.",
        "Choose another name, or change the target.",
    ),
    "target_known": Code(
        409,
        "The Kubernetes cluster is registered already",
        "Another target leads to the same cluster; two would share the namespaces of their tenants.",
        "Use the target that `detail` names, or give that one another kubeconfig.",
    ),
    "target_not_usable": Code(
        409,
        "The Kubernetes cluster cannot be used",
        "It does not answer, is too old, or does not let Berth do what it needs to; `detail` says which.",
        "Mend what `detail` names; POST /api/v1/targets/{target}/check looks at a registered target again.",
    ),
    "another_cluster": Code(
        409,
        "It is another Kubernetes cluster",
        "The cluster that answers is not the one that was registered under this name; nothing is done to it.",
        "Send the kubeconfig of the target's own cluster, or accept a cluster that was built anew by its `uid`.",
    ),
    "kubeconfig_not_kept": Code(
        409,
        "The kubeconfig cannot be kept",
        "Neither the folder of kubeconfigs nor the Secret for them can be written.",
        "Put the file there and register the target without a kubeconfig, or let Berth write there.",
    ),
    "target_in_use": Code(
        409,
        "The target is in use",
        "It has clusters, or the history of deleted ones, or plans are offered on it.",
        "Disable it: it takes no new orders then. Take it out of its plans first if it never held a cluster.",
    ),
    "signs_in_elsewhere": Code(
        409,
        "The person has no password here",
        "They sign in with the identity provider, which alone knows their password.",
        "Change it at the identity provider.",
    ),
    "removed_meanwhile": Code(
        409,
        "Something it needs was removed",
        "The tenant, the plan or the target was removed by somebody else in this very moment. Nothing was changed.",
        "See what there is now, and send the request anew.",
    ),
    "changed_meanwhile": Code(
        409,
        "It was changed by somebody else",
        "It was changed while the request was being checked. Nothing was changed by the request.",
        "Read it again, and repeat the change if it is still wanted.",
    ),
    "no_users": Code(
        409,
        "The engine has no users of its own",
        "Clusters of this engine have the one user they are made with.",
        "See the cluster's credentials.",
    ),
    "too_many_users": Code(
        409,
        "No more users",
        "The cluster has as many users as there can be.",
        "Remove one that is not needed, or let several programs share one.",
    ),
    "user_stays": Code(
        409,
        "The user belongs to the cluster",
        "The user `default` is made with the cluster and goes with it.",
        "Disable it: PATCH it with `enabled` false.",
    ),
    "rotation_under_way": Code(
        409,
        "An old password still works",
        "A user has two passwords at most, and the overlap of the last rotation has not ended.",
        "End the old one first: POST …/users/{user}/revoke-old. Or rotate with `overlap_seconds` 0.",
    ),
    "no_old_password": Code(
        409,
        "There is no old password",
        "Only the newest password of the user works.",
        "Rotate it to end the present one.",
    ),
    "restart_needed": Code(
        409,
        "Pods run an older template",
        "Pods that an older Berth made have exporters that sign in as `default`, and would lose their sight.",
        "Restart the cluster first; its condition UpToDate says when that is done.",
    ),
    "not_encrypted": Code(
        409,
        "The cluster does not encrypt its traffic",
        "It was ordered without TLS, so it has neither certificates nor an authority.",
        "Order a new cluster with TLS on, if its engine has it.",
    ),
    "certificate_not_ready": Code(
        409,
        "The certificate is not made yet",
        "Certificates are made when the cluster is first applied to its target, and made anew when they are gone.",
        "Wait until the first step of the cluster's operation is done, or a minute.",
    ),
    "credential_not_ready": Code(
        409,
        "The credentials are not made yet",
        "The cluster is being made; its passwords come with the first step.",
        "Wait until the first step of its operation is done, then repeat it.",
    ),
    "target_unreachable": Code(
        503,
        "The target does not answer",
        "The Kubernetes cluster that holds it cannot be reached. What runs there runs on.",
        "Repeat it later; `detail` says what an administrator can do.",
    ),
    "monitoring_unreachable": Code(
        503,
        "Alertmanager does not answer",
        "Alerts are asked of Alertmanager, which cannot be reached or gives no alerts. Clusters run on; phase and "
        "causes come from Berth itself.",
        "Repeat it later; an administrator looks at Alertmanager and at BERTH_ALERTMANAGER_URL.",
    ),
}

# Codes of single fields, in `errors[].code`.
FIELD_CODES: Mapping[str, str] = {
    "required": "The field is missing.",
    "null": "The field may not be null.",
    "blank": "The field may not be empty.",
    "invalid": "The value has the wrong type or form.",
    "invalid_choice": "The value is none of the allowed ones.",
    "min_value": "The number is too small.",
    "max_value": "The number is too large.",
    "min_length": "The text is too short.",
    "max_length": "The text is too long.",
    "max_string_length": "The number is written with too many digits.",
    "not_a_list": "A list is expected.",
    "not_a_dict": "An object is expected.",
    "empty": "The list may not be empty.",
    "unknown_field": "There is no such field.",
    "unknown_parameter": "There is no such query parameter.",
    "not_changeable": "The field cannot be changed on a running cluster.",
    "null_characters_not_allowed": "The text holds a NUL character.",
    "surrogate_characters_not_allowed": "The text holds half of a character.",
    "wrong_type": "The value has the wrong type.",
    "not_a_choice": "The value is none of the allowed ones.",
    "out_of_range": "The number is too small or too large.",
    "not_allowed": "The plan or Berth does not allow this value; the message says why.",
    "unknown_storage_class": "The target has no such storage class.",
    "unknown_engine": "There is no such engine.",
    "unknown_plan": "There is no such plan for this engine.",
    "plan_not_offered": "New clusters cannot be ordered by this plan any more.",
    "unknown_version": "The engine is not offered in this version.",
    "no_upgrade_path": "A cluster of this version cannot go there; the message says why, and where it can go.",
    "not_together": "This cannot be asked for together with other changes: one, then the other.",
    "unknown_target": "There is no such target to choose.",
    "target_disabled": "The target takes no new orders.",
    "bad_kubeconfig": "The kubeconfig cannot be accepted; the message says why.",
    "another_cluster": "It leads to another Kubernetes cluster.",
    "bad_name": "The name breaks the rule for names.",
    "refuses_writes": "With this value the cluster would take no writes.",
    "bad_password": "The password is too short, too common or too much like the name.",
    "wrong_password": "It is not the password in use.",
    "reserved": "The name is Berth's own.",
    "too_many": "There are too many of them.",
    "none": "At least one is needed.",
    "all_and_more": "All, and some beside: choose one.",
    "bad_prefix": "The prefix holds what would be a pattern, or white space.",
    "unknown_group": "There is no such group of commands.",
    "only_default": "Only the user default may have this.",
    "name_taken": "The name is in use.",
    "unknown_user": "There is no such user.",
    "confirm_name": "Deleting data wants the cluster's name typed again.",
    "loses_replicas": "The combination loses data at the first restart.",
    "unknown_resource": "There is no such resource to limit.",
    "unknown_cluster": "There is no such cluster.",
    "duplicate": "The same thing is named twice.",
    "storage_too_small": "The storage does not hold twice the data that the memory may hold.",
    "too_few_nodes": "The target has too few nodes for the spread rule.",
}
