"""Targets registered, changed, swapped and removed over the API, with a real API server behind the kubeconfigs."""

from __future__ import annotations

import json
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from pytest_django import Settings
from rest_framework.test import APIClient

from provisioning.apply.client import CLIENTS, KubeClient
from provisioning.apply.door import path_of
from provisioning.catalog.plans import ensure_plans
from provisioning.clusters.reconcile import reconcile
from provisioning.models import Cluster, Operation, Plan, Target
from provisioning.targets import discover
from sandbox import Sandbox
from tenants.models import AuditEvent, Membership, QuotaLimit, Role, Tenant, User
from tenants.tokens import create_token

TARGETS = "/api/v1/targets"
ELSEWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    """Where kubeconfigs are kept."""
    settings.TARGETS_DIR = tmp_path
    for name in ("main", "other"):
        CLIENTS.drop(name)
    return tmp_path


@pytest.fixture
def root(db: None) -> APIClient:
    return caller(User.objects.create_superuser("root"))


@pytest.fixture
def kubeconfig(control_plane: Sandbox) -> str:
    return control_plane.kubeconfig_path.read_text()


@pytest.fixture
def registered(root: APIClient, kubeconfig: str) -> Target:
    answer = root.post(TARGETS, {"name": "main", "title": "Main", "kubeconfig": kubeconfig}, format="json")
    assert answer.status_code == 201, answer.content
    return Target.objects.get(name="main")


def caller(user: User, **options: Any) -> APIClient:
    _, secret = create_token(user=user, name="test", **{"scopes": ["admin"], **options})
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def everything_stored() -> str:
    """All that the database holds about targets and requests."""
    return str([list(model.objects.values()) for model in (Target, AuditEvent)])


def secrets_of(kubeconfig: str) -> list[str]:
    user = yaml.safe_load(kubeconfig)["users"][0]["user"]
    found = [value for key, value in user.items() if key in ("token", "client-key-data", "client-certificate-data")]
    assert found
    return found


def changed(kubeconfig: str, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
    """A kubeconfig with some members of its cluster or user replaced; None takes one out."""
    content = yaml.safe_load(kubeconfig)
    for part, changes in ((content["clusters"][0]["cluster"], cluster), (content["users"][0]["user"], user)):
        part.update(changes or {})
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    return yaml.safe_dump(content)


# --- registering ------------------------------------------------------------------------------------------------------


@pytest.mark.control_plane
def test_a_target_is_registered_with_what_it_has_and_its_kubeconfig_is_kept_from_everybody(
    root: APIClient, kubeconfig: str, folder: Path
) -> None:
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json")
    assert answer.status_code == 201, answer.content
    told = answer.json()
    assert (told["name"], told["title"], told["enabled"], told["reachable"], told["reason"]) == (
        "main", "main", True, True, "",
    )  # fmt: skip
    assert told["kubernetes_version"].startswith("v1.")
    assert len(told["uid"]) == 36
    assert root.get(f"{TARGETS}/main").json() == told
    kept = folder / "main.kubeconfig"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["main.kubeconfig"]
    for secret in secrets_of(kubeconfig):
        assert secret in kept.read_text()
        assert secret not in everything_stored()
        assert secret not in answer.content.decode()
    assert discover(Target.objects.get(name="main"))
    row = AuditEvent.objects.get()
    assert (row.action, row.object, row.detail["uid"]) == ("registerTarget", "targets/main", told["uid"])


@pytest.mark.control_plane
def test_without_a_kubeconfig_the_file_that_is_there_is_used(root: APIClient, kubeconfig: str, folder: Path) -> None:
    missing = root.post(TARGETS, {"name": "main"}, format="json")
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (422, "/kubeconfig")
    (folder / "main.kubeconfig").write_text(kubeconfig)
    assert root.post(TARGETS, {"name": "main"}, format="json").status_code == 201


@pytest.mark.control_plane
def test_one_cluster_is_one_target_and_one_name_is_one_target(
    root: APIClient, registered: Target, kubeconfig: str, folder: Path
) -> None:
    again = root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "target_taken")
    other = root.post(TARGETS, {"name": "other", "kubeconfig": kubeconfig}, format="json")
    assert (other.status_code, other.json()["code"]) == (409, "target_known")
    assert "as main" in other.json()["detail"]
    assert [file.name for file in folder.iterdir()] == ["main.kubeconfig"]


@pytest.mark.control_plane
def test_a_cluster_whose_account_lacks_rights_is_refused_with_what_is_lacking(
    root: APIClient, kubeconfig: str, control_plane: Sandbox, folder: Path
) -> None:
    name = f"weak-{secrets.token_hex(3)}"
    control_plane.kubectl("-n", "default", "create", "serviceaccount", name)
    account = f"--serviceaccount=default:{name}"
    control_plane.kubectl("create", "clusterrolebinding", name, "--clusterrole=view", account)
    token = control_plane.kubectl("-n", "default", "create", "token", name).stdout.strip()
    # `view` reads no nodes: told as what stops the first look.
    credentials = {"token": token, "client-certificate-data": None, "client-key-data": None}
    weak = changed(kubeconfig, user=credentials)
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": weak}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "target_not_usable")
    assert "nodes" in answer.json()["detail"]
    reader = f"{name}-nodes"
    control_plane.kubectl(
        "create", "clusterrole", reader, "--verb=list,get", "--resource=nodes,storageclasses.storage.k8s.io"
    )
    control_plane.kubectl("create", "clusterrolebinding", reader, f"--clusterrole={reader}", account)
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": weak}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "target_not_usable")
    assert "may not create namespaces" in answer.json()["detail"]
    assert token not in answer.content.decode()
    assert not Target.objects.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"server": "https://127.0.0.1:9"}, {}, "does not answer"),
        ({"server": "https://nowhere.invalid"}, {}, "does not answer"),
        ({}, {"token": "wrong", "client-certificate-data": None, "client-key-data": None}, "does not accept"),
        ({"certificate-authority-data": None}, {}, "certificate is not accepted"),
    ],
)
@pytest.mark.control_plane
def test_a_cluster_that_cannot_be_used_is_refused_and_nothing_is_kept(
    root: APIClient, kubeconfig: str, folder: Path, cluster: dict[str, Any], user: dict[str, Any], words: str
) -> None:
    body = {"name": "main", "kubeconfig": changed(kubeconfig, cluster=cluster, user=user)}
    answer = root.post(TARGETS, body, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "target_not_usable"), answer.content
    assert words in answer.json()["detail"]
    assert answer.json()["suggestion"]
    assert not Target.objects.exists()
    assert list(folder.iterdir()) == []


MINIMAL: dict[str, Any] = {
    "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443"}}],
    "users": [{"name": "u", "user": {"token": "t0ken-of-the-user"}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {"exec": {"command": "/bin/sh", "apiVersion": "v1"}}, "program (exec)"),
        ({}, {"auth-provider": {"name": "oidc"}}, "program (auth-provider)"),
        ({}, {"tokenFile": "/etc/shadow"}, "file (tokenFile)"),
        ({}, {"client-key": "/etc/ssl/key.pem"}, "file (client-key)"),
        ({}, {"client-key-data": "a2V5"}, "a certificate and its key go together"),
        ({}, {"client-key-data": "no base64!", "client-certificate-data": "a2V5"}, "client-key-data is not base64"),
        ({}, {"token": None}, "no credentials"),
        ({}, {"token": 7}, "token is not a text"),
        ({}, {"as": "system:admin"}, "as somebody else"),
        ({"certificate-authority": "/etc/passwd"}, {}, "a file of its authority"),
        ({"insecure-skip-tls-verify": True}, {}, "skips the check"),
        ({"server": "http://127.0.0.1:6443"}, {}, "https://host:port"),
        ({"server": "https://user:pass@host"}, {}, "https://host:port"),
        ({"server": "https://host:99999"}, {}, "https://host:port"),
        ({"server": None}, {}, "https://host:port"),
    ],
)
def test_a_kubeconfig_that_runs_reads_or_trusts_more_than_it_says_is_refused(
    root: APIClient, folder: Path, cluster: dict[str, Any], user: dict[str, Any], words: str
) -> None:
    text = changed(yaml.safe_dump(MINIMAL), cluster=cluster, user=user)
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": text}, format="json")
    assert answer.status_code == 422, answer.content
    problem = answer.json()["errors"][0]
    assert (problem["pointer"], problem["code"]) == ("/kubeconfig", "bad_kubeconfig")
    assert words in problem["message"].lower() or words in problem["message"]
    assert "t0ken" not in answer.content.decode()
    assert "t0ken" not in everything_stored()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "just words", "a: b: c", "a: &x [1]\nb: *x", "\t", "{" * 60000, "!!python/object:os.x {}",
        json.dumps({**MINIMAL, "contexts": []}),
        json.dumps({**MINIMAL, "users": [7]}), json.dumps({**MINIMAL, "current-context": None}),
    ],
)  # fmt: skip
def test_what_is_no_kubeconfig_is_refused_by_its_field(root: APIClient, text: str) -> None:
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": text}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/kubeconfig"), answer.content


def test_the_cluster_berth_runs_in_wants_no_kubeconfig_and_berth_to_run_in_one(root: APIClient) -> None:
    both = root.post(TARGETS, {"name": "main", "in_cluster": True, "kubeconfig": "x"}, format="json")
    assert both.json()["errors"][0]["pointer"] == "/kubeconfig"
    outside = root.post(TARGETS, {"name": "main", "in_cluster": True}, format="json")
    assert (outside.status_code, outside.json()["code"]) == (409, "target_not_usable")


@pytest.mark.control_plane
def test_where_the_folder_cannot_be_written_nothing_is_registered(
    root: APIClient, kubeconfig: str, folder: Path, settings: Settings
) -> None:
    settings.TARGETS_DIR = folder / "absent"
    answer = root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "kubeconfig_not_kept")
    assert not Target.objects.exists()


@pytest.mark.control_plane
def test_kubeconfigs_can_be_kept_in_a_secret_of_berths_own_cluster(
    root: APIClient, kubeconfig: str, control_plane: Sandbox, folder: Path, settings: Settings
) -> None:
    name = f"targets-{secrets.token_hex(3)}"
    control_plane.kubectl("-n", "default", "create", "secret", "generic", name)
    settings.TARGETS_SECRET = f"default/{name}"
    # Berth runs in no cluster here; its own is played by the same API server.
    home = KubeClient.from_kubeconfig(control_plane.kubeconfig_path)
    with patch.object(KubeClient, "in_cluster", return_value=home):
        assert root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json").status_code == 201
        kept = home.get(path_of("Secret", "default", name))["data"]
        assert list(kept) == ["main.kubeconfig"]
        assert list(folder.iterdir()) == []
        assert root.delete(f"{TARGETS}/main").status_code == 204
        assert home.get(path_of("Secret", "default", name)).get("data", {}) == {}
        settings.TARGETS_SECRET = "default/there-is-none"
        refused = root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "kubeconfig_not_kept")


# --- changing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def acme(db: None) -> Tenant:
    ensure_plans()
    return Tenant.objects.create(slug=f"acme-{secrets.token_hex(3)}", name="Acme")


@pytest.fixture
def alice(acme: Tenant) -> User:
    user = User.objects.create_user("alice")
    Membership.objects.create(tenant=acme, user=user, role=Role.OWNER)
    return user


def order(alice: User, acme: Tenant, name: str, **more: Any) -> Any:
    body = {"engine": "redis", "plan": "redis-dev", "name": name, **more}
    headers = {"Idempotency-Key": name}
    return caller(alice).post(f"/api/v1/tenants/{acme.slug}/clusters", body, format="json", headers=headers)


@pytest.mark.control_plane
def test_a_disabled_target_takes_no_new_orders_and_goes_on_with_what_it_has(
    root: APIClient, registered: Target, acme: Tenant, alice: User
) -> None:
    assert order(alice, acme, "before").status_code == 202
    assert root.patch(f"{TARGETS}/main", {"enabled": False}, format="json").json()["enabled"] is False
    refused = order(alice, acme, "named", target="main")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "target_disabled")
    assert order(alice, acme, "unnamed").status_code == 422
    forecast = {"engine": "redis", "plan": "redis-dev", "target": "main"}
    address = f"/api/v1/tenants/{acme.slug}/quota/forecast"
    assert caller(alice).post(address, forecast, format="json").status_code == 422
    reconcile(Cluster.objects.get(name="before").pk)
    assert Cluster.objects.get(name="before").observed_generation == 1
    root.patch(f"{TARGETS}/main", {"enabled": True, "title": "Again"}, format="json")
    assert order(alice, acme, "after").status_code == 202
    assert Target.objects.get(name="main").title == "Again"


@pytest.mark.control_plane
def test_a_swapped_cluster_is_noticed_and_nothing_is_done_to_it(
    root: APIClient, registered: Target, acme: Tenant, alice: User, control_plane: Sandbox
) -> None:
    order(alice, acme, "orders")
    # As after a swap of what is behind the address: another UID answers than the one that is remembered.
    Target.objects.update(uid=ELSEWHERE)
    cluster = Cluster.objects.get(name="orders")
    reconcile(cluster.pk)
    operation = Operation.objects.get(cluster=cluster)
    assert "Another Kubernetes cluster answers for the target main" in operation.reason
    namespaces = control_plane.kubectl("get", "namespaces", "-o", "name").stdout
    assert f"namespace/berth-{acme.slug}" not in namespaces.split()
    assert not discover(Target.objects.get(name="main"))
    shown = root.get(f"{TARGETS}/main").json()
    assert shown["reachable"] is False
    assert "Another Kubernetes cluster" in shown["reason"]
    findings = {one["check"]: one for one in root.post(f"{TARGETS}/main/check").json()["findings"]}
    assert findings["identity"]["ok"] is False
    assert findings["identity"]["remedy"]
    # It was built anew, and the administrator says so by its UID, not by just any.
    wrong = root.patch(f"{TARGETS}/main", {"uid": "something"}, format="json")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "another_cluster")
    right = root.patch(f"{TARGETS}/main", {"uid": registered.uid}, format="json")
    assert (right.status_code, right.json()["reachable"]) == (200, True)
    reconcile(cluster.pk)
    assert Cluster.objects.get(name="orders").observed_generation == 1


@pytest.mark.control_plane
def test_a_new_kubeconfig_must_lead_to_the_same_cluster(
    root: APIClient, registered: Target, kubeconfig: str, folder: Path
) -> None:
    kept = folder / "main.kubeconfig"
    before = kept.read_text()
    unusable = {"kubeconfig": changed(kubeconfig, cluster={"server": "https://127.0.0.1:9"})}
    assert root.patch(f"{TARGETS}/main", unusable, format="json").json()["code"] == "target_not_usable"
    Target.objects.update(uid=ELSEWHERE)
    foreign = root.patch(f"{TARGETS}/main", {"kubeconfig": kubeconfig}, format="json")
    assert (foreign.status_code, foreign.json()["code"]) == (409, "another_cluster")
    assert kept.read_text() == before
    Target.objects.update(uid=registered.uid)
    kept.unlink()
    assert root.patch(f"{TARGETS}/main", {"kubeconfig": kubeconfig}, format="json").status_code == 200
    assert kept.read_text() == before
    assert AuditEvent.objects.order_by("-id")[0].detail == {"kubeconfig": "replaced"}


@pytest.mark.control_plane
def test_a_check_answers_every_question(root: APIClient, registered: Target, folder: Path) -> None:
    answer = root.post(f"{TARGETS}/main/check")
    assert answer.status_code == 200, answer.content
    findings = {one["check"]: one["ok"] for one in answer.json()["findings"]}
    assert findings == {
        "answers": True, "identity": True, "version": True, "rights": True, "nodes": False, "storage": False,
    }  # fmt: skip
    (folder / "main.kubeconfig").unlink()
    answer = root.post(f"{TARGETS}/main/check").json()
    assert [(one["check"], one["ok"]) for one in answer["findings"]] == [("answers", False)]
    assert (answer["target"]["reachable"], "main.kubeconfig" in answer["target"]["reason"]) == (False, True)


@pytest.mark.control_plane
def test_a_target_from_before_remembers_its_cluster_at_the_first_look(kubeconfig: str, folder: Path, db: None) -> None:
    for name in ("main", "other"):
        (folder / f"{name}.kubeconfig").write_text(kubeconfig)
        Target.objects.create(name=name, title=name)
    assert discover(Target.objects.get(name="main"))
    assert len(Target.objects.get(name="main").uid) == 36
    # A second name for the same cluster was possible before; it is told, and not used.
    assert not discover(Target.objects.get(name="other"))
    assert "same Kubernetes cluster as the target main" in Target.objects.get(name="other").reason


# --- removing ---------------------------------------------------------------------------------------------------------


@pytest.mark.control_plane
def test_a_target_that_never_held_a_cluster_goes_with_its_limits_and_its_kubeconfig(
    root: APIClient, registered: Target, acme: Tenant, folder: Path
) -> None:
    QuotaLimit.objects.create(tenant=acme, place="main", resource="pods", limit=3)
    QuotaLimit.objects.create(tenant=acme, place="", resource="pods", limit=9)
    plan = Plan.objects.get(name="redis-dev")
    plan.targets.add(registered)
    refused = root.delete(f"{TARGETS}/main")
    assert (refused.status_code, refused.json()["code"]) == (409, "target_in_use")
    assert "redis-dev" in refused.json()["detail"]
    plan.targets.clear()
    assert root.delete(f"{TARGETS}/main").status_code == 204
    assert root.get(f"{TARGETS}/main").status_code == 404
    assert list(folder.iterdir()) == []
    assert list(QuotaLimit.objects.values_list("place", flat=True)) == [""]


@pytest.mark.parametrize(("phase", "words"), [("ready", "1 clusters"), ("deleted", "history")])
def test_a_target_with_clusters_or_their_history_stays(root: APIClient, acme: Tenant, phase: str, words: str) -> None:
    target = Target.objects.create(name="main", title="Main")
    Cluster.objects.create(tenant=acme, target=target, name="c", engine="redis", version="7", spec={}, phase=phase)
    answer = root.delete(f"{TARGETS}/main")
    assert (answer.status_code, answer.json()["code"]) == (409, "target_in_use")
    assert words in answer.json()["detail"]
    assert Target.objects.exists()


# --- the audit --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_rows(root: APIClient) -> Iterator[None]:
    """The audit takes no rows."""
    root.raise_request_exception = False
    with ExitStack() as stack:
        for module in ("portal.api.audited", "tenants.audit"):
            stack.enter_context(patch(f"{module}.record", side_effect=DatabaseError("disk full")))
        yield


@pytest.mark.control_plane
def test_without_its_row_no_target_is_registered(no_rows: None, root: APIClient, kubeconfig: str, folder: Path) -> None:
    assert root.post(TARGETS, {"name": "main", "kubeconfig": kubeconfig}, format="json").status_code == 500
    assert not Target.objects.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.control_plane
def test_without_its_row_a_target_and_its_kubeconfig_stay_as_they_were(
    registered: Target, no_rows: None, root: APIClient, kubeconfig: str, folder: Path
) -> None:
    before = Target.objects.values().get()
    (folder / "main.kubeconfig").write_text("as it was")
    for body in ({"title": "Other"}, {"kubeconfig": kubeconfig, "title": "Other"}):
        assert root.patch(f"{TARGETS}/main", body, format="json").status_code == 500
    assert root.post(f"{TARGETS}/main/check").status_code == 500
    assert root.delete(f"{TARGETS}/main").status_code == 500
    assert Target.objects.values().get() == before
    assert (folder / "main.kubeconfig").read_text() == "as it was"


@pytest.mark.control_plane
def test_every_change_of_a_target_leaves_one_row(root: APIClient, registered: Target) -> None:
    assert root.patch(f"{TARGETS}/main", {"title": "Other"}, format="json").status_code == 200
    assert root.post(f"{TARGETS}/main/check").status_code == 200
    assert root.delete(f"{TARGETS}/main").status_code == 204
    rows = AuditEvent.objects.order_by("id").values_list("action", "object", "status", "actor")
    assert list(rows) == [
        ("registerTarget", "targets/main", 201, "root"), ("changeTarget", "targets/main", 200, "root"),
        ("checkTarget", "targets/main/check", 200, "root"), ("removeTarget", "targets/main", 204, "root"),
    ]  # fmt: skip


@pytest.mark.control_plane
def test_a_kubeconfig_that_cannot_be_removed_keeps_its_target(
    root: APIClient, registered: Target, settings: Settings
) -> None:
    # No folder is there to be emptied: it is a file now.
    settings.TARGETS_DIR = settings.TARGETS_DIR / "main.kubeconfig"
    answer = root.delete(f"{TARGETS}/main")
    assert (answer.status_code, answer.json()["code"]) == (409, "kubeconfig_not_kept")
    assert Target.objects.exists()
    assert not AuditEvent.objects.filter(action="removeTarget", result="success").exists()


@pytest.mark.control_plane
def test_a_target_by_command_leaves_a_row_of_nobody(kubeconfig: str, folder: Path, db: None) -> None:
    (folder / "main.kubeconfig").write_text(kubeconfig)
    call_command("add_target", "main", "--title", "Main", stdout=StringIO())
    call_command("add_target", "main", "--title", "Again", stdout=StringIO())
    target = Target.objects.get()
    assert (target.title, target.reachable, len(target.uid)) == ("Again", True, 36)
    rows = list(AuditEvent.objects.order_by("id"))
    assert [(row.action, row.object, row.actor, row.address, row.result) for row in rows] == [
        ("registerTarget", "targets/main", "", None, "success"), ("changeTarget", "targets/main", "", None, "success"),
    ]  # fmt: skip
    told = {"command": "add_target", "uid": target.uid, "source": "file", "reach": "direct"}
    assert [row.detail for row in rows] == [told, told]


def test_a_target_by_command_that_does_not_answer_is_registered_and_noted_all_the_same(folder: Path, db: None) -> None:
    (folder / "main.kubeconfig").write_text(yaml.safe_dump({**MINIMAL, "clusters": []}))
    with pytest.raises(CommandError, match="is registered but does not answer"):
        call_command("add_target", "main")
    assert Target.objects.get().reachable is False
    assert AuditEvent.objects.get().action == "registerTarget"


def test_without_its_row_no_command_changes_anything(no_rows: None, folder: Path) -> None:
    (folder / "main.kubeconfig").write_text(yaml.safe_dump(MINIMAL))
    for command in (["add_target", "main"], ["berth_setup"]):
        with pytest.raises(DatabaseError):
            call_command(*command, stdout=StringIO())
    assert not Target.objects.exists()
    assert not Plan.objects.exists()


def test_setting_up_notes_what_it_made_and_nothing_when_all_was_there(db: None) -> None:
    tenant = Tenant.objects.create(slug="acme", name="Acme")
    target = Target.objects.create(name="main", title="Main")
    spec = {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1}
    Cluster.objects.create(tenant=tenant, target=target, name="c", engine="redis", version="7", spec=spec)
    for _ in range(2):
        call_command("berth_setup", stdout=StringIO())
    told = AuditEvent.objects.order_by("id").values_list("action", "object", "detail", "actor", "address")
    made = Plan.objects.order_by("pk").values_list("name", flat=True)
    plans = [("createPlan", f"plans/{name}", {"command": "berth_setup"}, "", None) for name in made]
    stock = ("takeStock", "quota", {"command": "berth_setup", "clusters": 1}, "", None)
    assert sorted(told, key=str) == sorted([*plans, stock], key=str)
    assert len(plans) == 5


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("post", ""), ("patch", "/main"), ("delete", "/main"), ("post", "/main/check")]
)
def test_only_a_platform_administrator_touches_targets(
    acme: Tenant, alice: User, root: APIClient, method: str, path: str
) -> None:
    Target.objects.create(name="main", title="Main")
    refused = caller(alice).generic(method.upper(), TARGETS + path, "{}", "application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    unscoped = caller(User.objects.get(username="root"), scopes=["write"])
    assert unscoped.generic(method.upper(), TARGETS + path, "{}", "application/json").json()["code"] == "scope_required"
    of_tenant = caller(User.objects.get(username="root"), tenant=acme)
    assert (
        of_tenant.generic(method.upper(), TARGETS + path, "{}", "application/json").json()["code"] == "scope_required"
    )
