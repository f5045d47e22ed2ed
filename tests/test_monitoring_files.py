"""What is shipped for Prometheus and Grafana fits together: rules, runbooks, dashboards, deployables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dev.monitoring import DEPLOYED, ENGINES, deployed
from sandbox import packages

ROOT = Path(__file__).resolve().parents[1]
RULES = sorted(ENGINES.glob("*/monitoring/rules.yaml"))
ALERTS = [
    pytest.param(path, rule, id=rule["alert"])
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


def test_deployables_are_as_the_engines_folders_say() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in deployed()} == deployed()


def test_everything_that_can_be_deployed_is_in_the_kustomization() -> None:
    listed = yaml.safe_load((DEPLOYED / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in deployed()} <= set(listed)
    assert all((DEPLOYED / name).exists() for name in listed)


@pytest.mark.parametrize(("path", "rule"), ALERTS)
def test_an_alert_names_the_cluster_and_says_what_to_do(path: Path, rule: dict[str, dict[str, str]]) -> None:
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert "{{ $labels.tenant }}/{{ $labels.cluster }}" in said["summary"]


@pytest.mark.parametrize(("path", "rule"), ALERTS)
def test_a_runbook_leads_to_its_own_heading(path: Path, rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (\S.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert str(rule["alert"]) in headings
    assert anchor == str(rule["alert"]).lower()


def test_the_plain_configurations_are_valid(tmp_path: Path) -> None:
    packages.ensure(["promtool", "amtool"], install=False)
    (tmp_path / "rules").mkdir()
    for path in RULES:
        (tmp_path / "rules" / path.parts[-3]).with_suffix(".yaml").write_text(path.read_text())
    for name in ("prometheus.yml", "alertmanager.yml"):
        (tmp_path / name).write_text((DEPLOYED / name).read_text())
    (tmp_path / "berth-token").write_text("x")
    for command in (["promtool", "check", "config", "prometheus.yml"], ["amtool", "check-config", "alertmanager.yml"]):
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
