"""The shipped alert rules under promtool: valid, and each with cases that fire and that stay quiet (tests/alerts)."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from ipreserve.metrics import SweeperMetrics, WebhookMetrics
from sandbox import packages

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "alerts"


def shipped() -> dict[str, dict[str, Any]]:
    """The groups of every PrometheusRule in deploy/, by the object's name."""
    return {
        one["metadata"]["name"]: one["spec"]
        for path in sorted((ROOT / "deploy").rglob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
        if isinstance(one, dict) and one.get("kind") == "PrometheusRule"
    }


RULES = shipped()


def promtool(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    packages.ensure(["promtool"], install=False)
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)


def proven(name: str, spec: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What promtool says of these rules and our cases for them."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    # Everything is read as text: what promtool takes for zero sixty times, YAML takes for a hexadecimal number.
    cases = yaml.load((CASES / f"{name}.yaml").read_text(), yaml.BaseLoader)
    (folder / "cases.yaml").write_text(yaml.safe_dump(filled(cases)))
    return promtool("test", "rules", "cases.yaml", folder=folder)


def with_labels(text: str, labels: dict[str, str]) -> str:
    """An annotation as Prometheus writes it."""
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)


def filled(cases: dict[str, Any]) -> dict[str, Any]:
    """Cases with the annotations that they do not give: those of the shipped alert, with the expected labels put in."""
    texts = {
        rule["alert"]: rule["annotations"]
        for spec in RULES.values() for group in spec["groups"] for rule in group["rules"] if "alert" in rule
    }  # fmt: skip
    for case in cases["tests"]:
        for check in case["alert_rule_test"]:
            for expected in check["exp_alerts"]:
                said = {
                    key: with_labels(text, expected["exp_labels"]) for key, text in texts[check["alertname"]].items()
                }
                expected["exp_annotations"] = {**said, **expected.get("exp_annotations", {})}
    return cases


@pytest.mark.parametrize("name", RULES)
def test_shipped_rules_are_valid_and_behave_as_their_cases_say(name: str, tmp_path: Path) -> None:
    ran = proven(name, RULES[name], tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("never_or_always", ["vector(1) > 2", "vector(1)"])
@pytest.mark.parametrize("name", RULES)
def test_cases_notice_of_every_alert_when_it_never_fires_and_when_it_always_does(
    name: str, never_or_always: str, tmp_path: Path
) -> None:
    broken = copy.deepcopy(RULES[name])
    rules = [one for group in broken["groups"] for one in group["rules"] if "alert" in one]
    for rule in rules:
        rule["expr"] = never_or_always
    ran = proven(name, broken, tmp_path)
    complained_of = set(re.findall(r"alertname: (\w+)", ran.stdout + ran.stderr))
    assert complained_of == {rule["alert"] for rule in rules}


def samples(registry: CollectorRegistry) -> set[str]:
    """Names of what Prometheus reads before anything has happened, and of what has labels and may come."""
    return {one.name + ("_total" if one.type == "counter" else "") for one in registry.collect()}


def test_rules_ask_only_for_metrics_that_the_services_have() -> None:
    asked = set(re.findall(r"\bipreserve_\w+", str([RULES["ipreserve"]])))
    known = samples(WebhookMetrics().registry) | samples(SweeperMetrics().registry)
    assert asked
    assert asked <= known


def test_counters_that_alerts_watch_are_there_at_zero_so_that_the_first_event_is_an_increase() -> None:
    sweeper, webhook = SweeperMetrics().registry, WebhookMetrics().registry
    for labels in ({"protected": "yes"}, {"protected": "no"}):
        assert sweeper.get_sample_value("ipreserve_swaps_observed_total", labels) == 0
    assert sweeper.get_sample_value("ipreserve_clock_jumps_total") == 0
    assert webhook.get_sample_value("ipreserve_unprotected_total") == 0


def test_a_replica_that_no_longer_leads_leaves_no_alert_behind() -> None:
    metrics = SweeperMetrics()
    metrics.leading.set(1)
    metrics.quarantined.set(3)
    metrics.held.set(7)
    metrics.shortage.labels("n1").set(4)
    metrics.addresses.labels("freed").set(7)
    metrics.not_leading()
    values = {name: metrics.registry.get_sample_value(f"ipreserve_{name}") for name in (
        "leading", "quarantined_records", "held_addresses")}  # fmt: skip
    assert set(values.values()) == {0}
    assert metrics.registry.get_sample_value("ipreserve_shortage_addresses", {"place": "n1"}) is None
    assert metrics.registry.get_sample_value("ipreserve_addresses", {"state": "freed"}) is None
