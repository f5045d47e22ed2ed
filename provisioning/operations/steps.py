"""The steps of an operation, as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.utils import timezone

from provisioning.engines.base import Gate, StepTitle
from provisioning.models import Operation, OperationState

# Around the engine's own steps, in every operation that brings a wish about.
DELIVER_BEFORE = (
    StepTitle("apply", "Manifests applied"),
    StepTitle("schedule", "Pods placed and volumes bound"),
    StepTitle("start", "Containers started"),
)
DELIVER_AFTER = (StepTitle("proof", "Written to and read from"),)
DELETE = (
    StepTitle("workloads", "Pods ended"),
    StepTitle("objects", "Objects removed"),
    StepTitle("volumes", "Volumes settled"),
)


def fresh(titles: Sequence[StepTitle]) -> list[dict[str, Any]]:
    """Steps nobody has begun."""
    return [
        {"key": title.key, "title": title.title, "state": "waiting", "started": None, "ended": None, "reason": "",
         "object": ""}
        for title in titles
    ]  # fmt: skip


def renewed(old: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same steps, with nothing begun."""
    return fresh([StepTitle(step["key"], step["title"]) for step in old])


def stop(operation: Operation) -> None:
    """End the step an operation was at: it will not be finished."""
    for step in operation.steps:
        if step["state"] == "running":
            step.update(state="failed", ended=_text(timezone.now()))


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


class Progress:
    """Changes to one operation, gathered and written once; `changed` tells whether there is anything to write."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.changed = False
        if operation.state == OperationState.QUEUED:
            operation.state = OperationState.RUNNING
            operation.started = timezone.now()
            self.changed = True

    def step(self, key: str, state: str, reason: str = "", object: str = "") -> None:
        """Set one step. What is done stays done: what breaks afterwards is the cluster's health, not progress."""
        for step in self.operation.steps:
            if step["key"] != key or step["state"] == "done":
                continue
            wished = {"state": state, "reason": "" if state == "done" else reason, "object": object}
            if all(step[name] == value for name, value in wished.items()):
                continue
            now = _text(timezone.now())
            if state != "waiting" and step["started"] is None:
                step["started"] = now
            if state in ("done", "failed"):
                step["ended"] = now
            step.update(wished)
            self.changed = True
        done = sum(step["state"] == "done" for step in self.operation.steps)
        self.operation.percent = 100 * done // max(1, len(self.operation.steps))
        running = [step["reason"] for step in self.operation.steps if step["state"] == "running" and step["reason"]]
        self.operation.reason = running[0] if running else ""

    def gate(self, gate: Gate | None) -> None:
        """Set the health gate the operation waits at."""
        before = self.operation.gate
        if gate is None:
            after = None
        else:
            same = before is not None and before["key"] == gate.key
            after = {**asdict(gate), "since": before["since"] if before and same else _text(timezone.now())}
        if after != before:
            self.operation.gate = after
            self.changed = True

    def finish(self, state: OperationState, error: dict[str, str] | None = None) -> None:
        """End the operation."""
        self.operation.state = state
        self.operation.ended = timezone.now()
        self.operation.error = error
        self.operation.gate = None
        if state == OperationState.SUCCEEDED:
            self.operation.percent = 100
            self.operation.reason = ""
        for step in self.operation.steps:
            if step["state"] == "running":
                step["state"] = "failed"
                step["ended"] = _text(self.operation.ended)
        self.changed = True
