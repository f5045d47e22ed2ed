"""What is deployed for Prometheus and Grafana, made from the engines' folders: `python -m dev.monitoring --check` or
`--write`.

An engine keeps its alert rules and its dashboard as Prometheus and Grafana read them: a rules file and JSON. For
clusters with the Prometheus operator, deploy/monitoring/ holds the same as a PrometheusRule, and the dashboard in a
ConfigMap that Grafana's sidecar finds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ROOT / "provisioning" / "engines"
DEPLOYED = ROOT / "deploy" / "monitoring"
NAMESPACE = "berth-monitoring"
MADE = "# Made by `python -m dev.monitoring --write` from {source}: change that.\n"


class _Block(str):
    """A text of several lines, written as it is."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def _manifest(source: Path, api: str, kind: str, name: str, body: Mapping[str, Any], **metadata: Any) -> str:
    value = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, **metadata}, **body}
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return MADE.format(source=source.relative_to(ROOT)) + text


def deployed() -> dict[Path, str]:
    """Path below deploy/monitoring/ to what is to be in it."""
    found = {}
    for rules in sorted(ENGINES.glob("*/monitoring/rules.yaml")):
        engine = rules.parts[-3]
        found[DEPLOYED / f"{engine}-rules.yaml"] = _manifest(
            rules, "monitoring.coreos.com/v1", "PrometheusRule", f"berth-{engine}",
            {"spec": yaml.safe_load(rules.read_text(encoding="utf-8"))},
        )  # fmt: skip
    for dashboard in sorted(ENGINES.glob("*/monitoring/dashboard.json")):
        engine = dashboard.parts[-3]
        data = {f"berth-{engine}.json": _Block(dashboard.read_text(encoding="utf-8"))}
        found[DEPLOYED / f"{engine}-dashboard.yaml"] = _manifest(
            dashboard, "v1", "ConfigMap", f"berth-{engine}-dashboard", {"data": data}, labels={"grafana_dashboard": "1"}
        )
    return found


def main() -> int:
    """Write the files, or compare them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.monitoring", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="fail when a file is out of date")
    choice.add_argument("--write", action="store_true", help="write them")
    write = parser.parse_args().write
    stale = [path for path, text in deployed().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if write:
            path.write_text(deployed()[path], encoding="utf-8")
        else:
            print(f"{path.relative_to(ROOT)} is out of date. Run: python -m dev.monitoring --write", file=sys.stderr)
    return 0 if write or not stale else 1


if __name__ == "__main__":
    sys.exit(main())
