"""From an AdmissionReview to what must be reserved, and back to an answer. Pure.

What is asked for is read from the request itself, since a request of deletecollection has no name and a cache may be
behind. Only an eviction carries no pod; its answer needs one look (`Ask`). Anybody who reaches the port can send a
request, so what it says is compared with the pod that the API server has before it counts (webhook.py).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ipreserve.records import Address, Claim, address, parse_duration

PREFIX = "ipreserve.berth.io/"
POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
IP_ADDRS = "cni.projectcalico.org/ipAddrs"
POOLS = "cni.projectcalico.org/ipv{}pools"
POLICY_NAMES = ("hold", "on-scale-down", "on-owner-delete")
POLICIES = ("reserve", "short", "skip")
# Characters of a policy: it is kept in the ledger, which all pods share.
LONGEST_POLICY = 64
SUPPORTED = "admission.k8s.io/v1"
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
# Kubernetes' rules for labels: a selector that breaks them is refused by the API server.
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_NAME = re.compile(rf"((?=[^/]{{1,253}}/){_PREFIX}/)?{_LABEL}")
LABEL_VALUE = re.compile(rf"({_LABEL})?")


class BadReview(ValueError):
    """The body is no AdmissionReview that can be answered; the message says what is wrong."""


@dataclass(frozen=True)
class Selector:
    """A label selector with Kubernetes' own meaning: every term must match."""

    labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected. An absent label matches NotIn, as in Kubernetes."""
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return False
        return all(_term(labels, *term) for term in self.expressions)

    def manifest(self) -> dict[str, Any]:
        """As the API takes it."""
        found: dict[str, Any] = {}
        if self.labels:
            found["matchLabels"] = dict(self.labels)
        if self.expressions:
            found["matchExpressions"] = [
                {"key": name, "operator": operator, **({"values": list(values)} if values else {})}
                for name, operator, values in self.expressions
            ]
        return found


def _term(labels: Mapping[str, str], name: str, operator: str, values: Sequence[str]) -> bool:
    if operator == "Exists":
        return name in labels
    if operator == "DoesNotExist":
        return name not in labels
    if operator == "In":
        return labels.get(name) in values
    return name not in labels or labels[name] not in values


def selector(content: object) -> Selector:
    """A selector from the API's form. Raises ValueError, which names the field."""
    if not isinstance(content, dict) or set(content) - {"matchLabels", "matchExpressions"}:
        raise ValueError("a label selector is an object with matchLabels and matchExpressions")
    labels = content.get("matchLabels", {})
    if not isinstance(labels, dict):
        raise ValueError("matchLabels: an object of texts is needed")
    for name, value in labels.items():
        _check_name("matchLabels", name)
        _check_value(f"matchLabels[{name!r}]", value)
    terms: list[tuple[str, str, tuple[str, ...]]] = []
    expressions = content.get("matchExpressions", [])
    if not isinstance(expressions, list):
        raise ValueError("matchExpressions: a list is needed")
    for number, one in enumerate(expressions):
        place = f"matchExpressions[{number}]"
        if not isinstance(one, dict) or not isinstance(one.get("key"), str):
            raise ValueError(f"{place}.key: a text is needed")
        _check_name(f"{place}.key", one["key"])
        operator, values = one.get("operator"), one.get("values", [])
        if operator not in OPERATORS:
            raise ValueError(f"{place}.operator: {operator!r} is none of {', '.join(OPERATORS)}")
        if not isinstance(values, list) or bool(values) != (operator in ("In", "NotIn")):
            raise ValueError(f"{place}.values: needed with In and NotIn, and only there")
        for value in values:
            _check_value(f"{place}.values", value)
        terms.append((one["key"], operator, tuple(values)))
    return Selector(labels, tuple(terms))


def _check_name(place: str, name: str) -> None:
    if LABEL_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{place}: {name[:80]!r} is no name of a label: up to 63 letters, digits, '-', '_' and '.', a letter or "
            f"digit first and last, after a domain and '/' if there is one"
        )


def _check_value(place: str, value: object) -> None:
    if not isinstance(value, str) or LABEL_VALUE.fullmatch(value) is None:
        raise ValueError(
            f"{place}: {str(value)[:80]!r} is no value of a label: a text of up to 63 letters, digits, '-', '_' and "
            f"'.', a letter or digit first and last"
        )


STATEFUL_PODS = Selector(expressions=((POD_NAME_LABEL, "Exists", ()),))


@dataclass(frozen=True)
class Request:
    """One admission request, checked for shape."""

    uid: str
    operation: str
    resource: str
    subresource: str
    namespace: str
    name: str
    dry_run: bool
    object: Mapping[str, Any] | None
    old: Mapping[str, Any] | None

    @property
    def path(self) -> str:
        """One of WATCHED, or `other`: the caller chooses the words, and there must not be a metric for each."""
        found = f"{self.operation.lower()} {self.resource}{'/' if self.subresource else ''}{self.subresource}"
        return found if found in WATCHED else "other"

    @property
    def must(self) -> bool:
        """Whether what cannot be recorded may be refused. What kubelet reports has happened, and is never refused."""
        return self.subresource != "status"


@dataclass(frozen=True)
class Allow:
    """Nothing to write; `reason` is for the metric."""

    reason: str


@dataclass(frozen=True)
class Reserve:
    """These addresses must be barred before the answer is yes; `warnings` are for whoever asked."""

    claims: tuple[Claim, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """An eviction: the pod must be looked at, since the request does not carry it."""

    namespace: str
    name: str


Decision = Allow | Reserve | Ask
WATCHED = ("delete pods", "create pods/eviction", "update pods/status")


def parse(body: bytes) -> Request:
    """Raises BadReview, which names the field."""
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise BadReview("the body is not JSON") from error
    if not isinstance(found, dict) or found.get("kind") != "AdmissionReview":
        raise BadReview("kind: AdmissionReview is needed")
    if found.get("apiVersion") != SUPPORTED:
        raise BadReview(
            f"apiVersion: {str(found.get('apiVersion'))[:80]!r} is not understood. "
            f"Set admissionReviewVersions: [v1] in the webhook configuration."
        )
    request = found.get("request")
    if not isinstance(request, dict):
        raise BadReview("request: an object is needed")
    for name in ("uid", "operation"):
        if not isinstance(request.get(name), str) or not request[name]:
            raise BadReview(f"request.{name}: a text is needed")
    resource = request.get("resource")
    if not isinstance(resource, dict) or not isinstance(resource.get("resource"), str):
        raise BadReview("request.resource.resource: a text is needed")
    for name in ("object", "oldObject", "options"):
        if not isinstance(request.get(name), dict | None):
            raise BadReview(f"request.{name}: an object or null is needed")
    eviction_options = (request.get("object") or {}).get("deleteOptions") or {}
    options = request.get("options") or {}
    dry = bool(request.get("dryRun")) or bool(options.get("dryRun"))
    if isinstance(eviction_options, dict):
        dry = dry or bool(eviction_options.get("dryRun"))
    return Request(
        uid=request["uid"], operation=request["operation"], resource=resource["resource"],
        subresource=str(request.get("subResource") or ""), namespace=str(request.get("namespace") or ""),
        name=str(request.get("name") or ""), dry_run=dry, object=request.get("object"), old=request.get("oldObject"),
    )  # fmt: skip


def decide(request: Request, *, at: float, pods: Selector = STATEFUL_PODS) -> Decision:
    """What a request needs. Raises BadReview where the pod it carries has no usable shape.

    Paths: DELETE pods (also of deletecollection and namespace deletion, which have no name), CREATE pods/eviction,
    UPDATE pods/status. A dry run is always allowed without a write.
    """
    if request.resource != "pods":
        return Allow("not a pod")
    if request.dry_run:
        return Allow("dry run")
    match request.operation, request.subresource:
        case "DELETE", "":
            if request.old is None:
                raise BadReview("request.oldObject: missing in a DELETE")
            return reserve(request.old, claims(request.old, via="delete", at=at, pods=pods))
        case "CREATE", "eviction":
            name = request.name or str(_metadata(request.object or {}).get("name", ""))
            if not name:
                raise BadReview("request.name: missing in an eviction")
            return Ask(request.namespace, name)
        case "UPDATE", "status":
            if request.old is None or request.object is None:
                raise BadReview("request.oldObject and request.object: both are needed in an UPDATE")
            lost = claims(request.old, via="status", at=at, pods=pods)
            if not _has_ended(request.object) or _has_ended(request.old):
                kept = set(addresses(request.object))
                lost = tuple(one for one in lost if one.address not in kept)
            return reserve(request.old, lost)
    return Allow("not watched")


def reserve(pod: Mapping[str, Any], found: tuple[Claim, ...]) -> Allow | Reserve:
    """The decision for these claims of a pod. Raises BadReview."""
    return Reserve(found, tuple(warnings(pod))) if found else Allow("no address")


def claims(pod: Mapping[str, Any], *, via: str, at: float, pods: Selector = STATEFUL_PODS) -> tuple[Claim, ...]:
    """The addresses of a pod that must rest; none for host-network pods and for pods nobody selected.

    Pods that have failed are included: the pods of a lost node are set to Failed before they are removed, while their
    addresses are still taken. Raises BadReview.
    """
    metadata, spec = _metadata(pod), _object(pod, "spec")
    annotations = {str(name): str(value) for name, value in _object(metadata, "annotations").items()}
    labels = {str(name): str(value) for name, value in _object(metadata, "labels").items()}
    wish = annotations.get(PREFIX + "reserve")
    if spec.get("hostNetwork") or wish == "false" or (wish != "true" and not pods.matches(labels)):
        return ()
    for name in ("uid", "name", "namespace"):
        if not isinstance(metadata.get(name), str) or not metadata[name]:
            raise BadReview(f"metadata.{name}: a text is needed")
    node = str(spec.get("nodeName") or "none")
    policy = {name: said for name, said in _policies(annotations) if not policy_problem(name, said)}
    found = addresses(pod)
    dual = len({":" in one for one in found}) > 1
    return tuple(
        Claim(
            address=one, namespace=metadata["namespace"], pod=metadata["name"], node=node, uid=metadata["uid"],
            owner=owner(pod), via=via, at=at, policy=policy, ended=_has_ended(pod), dual=dual,
        )
        for one in found
    )  # fmt: skip


def policies(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The policy annotations of a StatefulSet or namespace, without their prefix; those that make no sense left out."""
    return {name: said for name, said in _policies(metadata.get("annotations") or {}) if not policy_problem(name, said)}


def _policies(annotations: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(annotations[PREFIX + name])) for name in POLICY_NAMES if PREFIX + name in annotations]


def policy_problem(name: str, said: str) -> str:
    """Why a policy does not count, in a sentence that names the annotation; empty when it does."""
    if len(said) > LONGEST_POLICY:
        return f"{PREFIX}{name}: longer than {LONGEST_POLICY} characters, so it does not count"
    if name != "hold":
        choices = ", ".join(POLICIES)
        return "" if said in POLICIES else f"{PREFIX}{name}: {said!r} is none of {choices}, so it does not count"
    if said == "skip":
        return ""
    try:
        parse_duration(said)
    except ValueError as error:
        return f"{PREFIX}{name}: {error}. It does not count"
    return ""


def warnings(pod: Mapping[str, Any]) -> list[str]:
    """A sentence for each policy of a pod that does not count, for whoever deletes it. Raises BadReview."""
    annotations = _object(_metadata(pod), "annotations")
    return [problem for name, said in _policies(annotations) if (problem := policy_problem(name, said))]


def addresses(pod: Mapping[str, Any]) -> tuple[Address, ...]:
    """All addresses in a pod's status, each once. Raises BadReview."""
    status = _object(pod, "status")
    listed = status.get("podIPs") or ([{"ip": status["podIP"]}] if status.get("podIP") else [])
    try:
        return tuple(dict.fromkeys(address(one["ip"]) for one in listed))
    except (ValueError, TypeError, KeyError) as error:
        raise BadReview("status.podIPs: not a list of addresses") from error


def owner(pod: Mapping[str, Any]) -> str:
    """The controller as `Kind/name`; empty when nobody controls the pod.

    Others too call a kind of theirs StatefulSet, and those are not looked at: theirs has the group behind it.
    """
    for one in _metadata(pod).get("ownerReferences") or ():
        if isinstance(one, dict) and one.get("controller"):
            kind, group = str(one.get("kind")), str(one.get("apiVersion") or "apps/v1").rpartition("/")[0]
            return f"{kind if kind != 'StatefulSet' or group == 'apps' else f'{kind}.{group}'}/{one.get('name')}"
    return ""


def asked_for(pod: Mapping[str, Any]) -> tuple[Address, ...]:
    """Addresses a pod wants by name through Calico's annotation; none when it cannot be read."""
    text = _object(_metadata(pod), "annotations").get(IP_ADDRS)
    try:
        return tuple(address(one) for one in json.loads(text)) if isinstance(text, str) else ()
    except (ValueError, TypeError, RecursionError):
        return ()


def pools_asked_for(pod: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Pools, by IP version and name or CIDR, that a pod wants its addresses of; none where that cannot be read."""
    annotations = _object(_metadata(pod), "annotations")
    found: list[tuple[int, str]] = []
    for version in (4, 6):
        try:
            found += [(version, str(one)) for one in json.loads(annotations.get(POOLS.format(version)) or "[]")]
        except (ValueError, TypeError, RecursionError):
            continue
    return tuple(sorted(found))


def _has_ended(pod: Mapping[str, Any]) -> bool:
    return _object(pod, "status").get("phase") in ("Succeeded", "Failed")


def _metadata(of: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(of, "metadata")


def _object(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadReview(f"{name}: an object is needed")
    return found


# --- giving back ----------------------------------------------------------------------------------------------------


def wants_back(request: Request) -> tuple[str, str] | None:
    """(namespace, pod name) of a StatefulSet's pod that is being created and wants its held address; else None."""
    pod = request.object
    if (request.operation, request.resource, request.subresource) != ("CREATE", "pods", "") or pod is None:
        return None
    metadata = _metadata(pod)
    annotations = _object(metadata, "annotations")
    if annotations.get(PREFIX + "give-back") != "true" or IP_ADDRS in annotations:
        return None
    if not owner(pod).startswith("StatefulSet/") or not metadata.get("name") or _object(pod, "spec").get("hostNetwork"):
        return None
    return request.namespace, str(metadata["name"])


def patch_for(found: Sequence[Address]) -> list[dict[str, Any]]:
    """The JSON patch that asks Calico for these addresses. The pod has annotations, or it could not have asked."""
    pointer = "/metadata/annotations/" + IP_ADDRS.replace("~", "~0").replace("/", "~1")
    return [{"op": "add", "path": pointer, "value": json.dumps(list(found))}]


# --- answers --------------------------------------------------------------------------------------------------------


def allowed(uid: str, *, warnings: Sequence[str] = (), patch: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Yes, with sentences the client shows and a change to what is created."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if warnings:
        response["warnings"] = list(warnings)
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return {"apiVersion": SUPPORTED, "kind": "AdmissionReview", "response": response}


def try_later(uid: str, message: str, *, seconds: int) -> dict[str, Any]:
    """No, but it may work in so many seconds: 429, which `kubectl drain` and controllers try again (403 ends them)."""
    status = {
        "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": message,
        "details": {"retryAfterSeconds": seconds},
    }  # fmt: skip
    return {
        "apiVersion": SUPPORTED, "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": False, "status": status},
    }  # fmt: skip
