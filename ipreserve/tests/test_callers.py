"""Who may ask what address rests for a pod: the API server, by a word that the webhook configuration says."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ipreserve import certs, install, kube
from ipreserve.kube import Kube
from ipreserve.records import State
from ipreserve.settings import Live
from ipreserve.tests.paper import Paper
from ipreserve.tests.test_admission import sent
from ipreserve.tests.test_calico_versions import WIDE, pools
from ipreserve.tests.test_sweeper import claim, reserve
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World


def path_that_was_told(door: Kube) -> str:
    """What the API server was told to call for giving back; "" while that has no word yet."""
    raw = door.get(f"{install.MUTATING}/{install.GIVE_BACK}")
    name = str(raw["webhooks"][0]["clientConfig"]["url"]).rpartition("/")[2]
    return f"/{name}" if name.startswith("give-back-") else ""


def test_stranger_who_asks_what_address_rests_for_a_pod_is_told_nothing_and_counted(
    world: World, serving: Service
) -> None:
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now())
    owner = {"kind": "StatefulSet", "name": "cache", "controller": True}
    metadata = {
        "name": "cache-0", "namespace": world.namespace, "ownerReferences": [owner],
        "annotations": {"ipreserve.berth.io/give-back": "true"},
    }  # fmt: skip
    request = {
        "uid": "1", "operation": "CREATE", "resource": {"resource": "pods"}, "namespace": world.namespace,
        "object": {"metadata": metadata},
    }  # fmt: skip
    body = json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}).encode()
    told = eventually(lambda: path_that_was_told(world.kube), "the webhook has said the word")
    strangers = 'ipreserve_admission_decisions_total{outcome="stranger",path="give-back"}'
    before = serving.value(strangers)
    guesses = ("/give-back", "/give-back-", f"{told}0", told[:-1])
    with pools(world, WIDE):
        for guess in guesses:
            assert sent(serving, "POST", guess, body) == (
                403, "only for the API server: the path is not what it was told\n"
            )  # fmt: skip
        status, text = sent(serving, "POST", told, body)
    assert status == 200
    # The same question, asked by who knows the word, has an answer.
    assert json.loads(text)["response"]["patchType"] == "JSONPatch"
    assert serving.value(strangers) == before + 4


def test_path_with_a_word_is_one_that_the_api_server_takes_for_a_service_too(admin: Kube) -> None:
    found = install.mutating(namespace=NAMESPACE, live=Live(), word="a0" * 20)
    found["metadata"]["name"] = "of-the-test"
    answer = admin.request("POST", install.MUTATING, found, query={"dryRun": "All"})
    assert answer["webhooks"][0]["clientConfig"]["service"]["path"] == "/give-back-" + "a0" * 20


def test_word_is_known_to_every_replica_before_it_is_used_when_the_authority_is_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = Paper()
    now = [1_700_000_000.0]
    monkeypatch.setattr(kube.Clock, "now", lambda self: now[0])

    def words() -> tuple[str, ...]:
        return certs.keep(paper, NAMESPACE, ["localhost"]).words

    (first,) = words()
    assert words() == (first,)
    # Past two thirds of its life the next one is announced, and signs some minutes later.
    now[0] += (certs.AUTHORITY_LIFE * 3 / 4).total_seconds()
    assert words()[0] == first
    (_, coming) = words()
    assert coming != first
    now[0] += (certs.ANNOUNCE + timedelta(minutes=1)).total_seconds()
    assert words() == (coming,)
