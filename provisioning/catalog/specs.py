"""From what a caller sent to a complete, checked spec: everything that is wrong is told at once."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provisioning.engines.base import Engine, Field, Problem, TargetView
from provisioning.models import Plan, Target
from tenants.refusals import FieldError, Invalid

LARGEST_MAP = 200


def target_view(target: Target) -> TargetView:
    """A target as engines see it."""
    fit = [node for node in target.nodes if node["schedulable"]]
    known = target.checked is not None and bool(target.nodes)
    return TargetView(
        name=target.name,
        nodes=len(fit) if known else None,
        zones=len({node["zone"] for node in fit}) if known else None,
        storage_classes=tuple(entry["name"] for entry in target.storage_classes),
        fixed_classes=tuple(entry["name"] for entry in target.storage_classes if not entry.get("expandable", True)),
    )


def complete_spec(
    engine: Engine, plan: Plan | None, sent: Mapping[str, Any], target: Target, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The request's values, then the plan's, then the engine's defaults. Raises Invalid with every problem.

    `before` is the complete spec of a cluster that runs: what its plan or target no longer allows it keeps, and may
    come nearer to what they do allow.
    """
    problems = [_unknown(key, engine) for key in sent if key not in {field.key for field in engine.fields}]
    spec: dict[str, Any] = {}
    for field in engine.fields:
        value = sent.get(field.key, (plan.values if plan else {}).get(field.key, field.default))
        wrong = _all_wrong(field, value)
        problems += wrong
        spec[field.key] = _typed_entries(field, value) if field.entries and not wrong else value
    view = target_view(target)
    problems += _new(lambda one: _class_problems(engine, plan, one, view), before, spec)
    if not problems:
        # The engine's own rules rely on kinds and limits being right.
        problems = [*_new(engine.check, before, spec), *_new(lambda one: engine.preflight(one, view), before, spec)]
    if problems:
        errors = [FieldError(f"/spec{problem.pointer}", problem.code, problem.message) for problem in problems]
        raise Invalid(
            "invalid",
            errors[0].message if len(errors) == 1 else f"{len(errors)} values of the spec are wrong.",
            suggestion="Change the fields named in errors.",
            errors=errors,
        )
    return spec


def _class_problems(engine: Engine, plan: Plan | None, spec: Mapping[str, Any], view: TargetView) -> list[Problem]:
    """Storage classes the plan or the target does not have."""
    problems = []
    for field in engine.fields:
        if field.kind != "storage-class":
            continue
        if plan is not None and plan.storage_classes and spec[field.key] not in plan.storage_classes:
            allowed = ", ".join(plan.storage_classes)
            text = f"{field.title}: the plan {plan.name} allows {allowed}."
            problems.append(Problem(f"/{field.key}", "not_allowed", text))
        elif view.storage_classes and spec[field.key] not in view.storage_classes:
            there = ", ".join(view.storage_classes)
            text = f"{field.title}: the target {view.name} has no class {spec[field.key]!r}. It has: {there}."
            problems.append(Problem(f"/{field.key}", "unknown_storage_class", text))
    return problems


def _new(
    judged: Callable[[Mapping[str, Any]], Sequence[Problem]], before: Mapping[str, Any] | None, spec: Mapping[str, Any]
) -> list[Problem]:  # fmt: skip
    """What is wrong with `spec`, but for what was so `before` already and is made no worse."""
    found = list(judged(spec))
    if before is None:
        return found
    had = {(one.pointer, one.code) for one in judged(before)}

    def stood(one: Problem) -> bool:
        if (one.pointer, one.code) not in had:
            return False
        was, will = (_at(values, one.pointer) for values in (before, spec))
        return bool(was == will or (isinstance(will, int | float) and will < was))

    return [one for one in found if not stood(one)]


def _at(spec: Mapping[str, Any], pointer: str) -> Any:
    """The value of a field, or of an entry of a map; None for an entry that is not set."""
    key, _, entry = pointer[1:].partition("/")
    return spec[key].get(entry) if entry else spec[key]


def _unknown(key: str, engine: Engine) -> Problem:
    keys = [field.key for field in engine.fields]
    close = difflib.get_close_matches(key, keys, 1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(keys)}."
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    return Problem(pointer, "unknown_field", f"{engine.title} has no field {key[:60]!r}. {hint}")


def _typed(field: Field, value: Any) -> Any:
    """A value of a map's entry in the entry's own kind, if it is the text of one: forms of maps know only texts."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if field.kind == "boolean" and text.lower() in ("yes", "true", "no", "false"):
        return text.lower() in ("yes", "true")
    if field.kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return value


def _typed_entries(field: Field, value: Mapping[str, Any]) -> dict[str, Any]:
    return {entry.key: _typed(entry, value[entry.key]) for entry in field.entries if entry.key in value}


def _all_wrong(field: Field, value: Any) -> list[Problem]:
    """Everything wrong with one value."""
    if field.entries:
        return _wrong_entries(field, value)
    wrong = _wrong(field, value, f"/{field.key}")
    return [] if wrong is None else [wrong]


def _wrong_entries(field: Field, value: Any) -> list[Problem]:
    """Everything wrong with a map whose keys are described."""
    if not isinstance(value, Mapping):
        return [Problem(f"/{field.key}", "wrong_type", f"{field.title}: an object is wanted.")]
    entries = {entry.key: entry for entry in field.entries}
    problems = []
    for key, sent in value.items():
        pointer = f"/{field.key}/" + key.replace("~", "~0").replace("/", "~1")
        if key in entries:
            problem = _wrong(entries[key], _typed(entries[key], sent), pointer)
            if problem is not None:
                problems.append(problem)
            continue
        why = next((reason for pattern, reason in field.refused if fnmatch.fnmatchcase(key, pattern)), "")
        if why:
            problems.append(Problem(pointer, "not_allowed", f"{field.title}: {key[:60]} is not yours to set. {why}"))
            continue
        close = difflib.get_close_matches(key, list(entries), 1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(entries)}."
        problems.append(Problem(pointer, "unknown_field", f"{field.title}: there is no {key[:60]!r} to set. {hint}"))
    return problems


def _wrong(field: Field, value: Any, pointer: str) -> Problem | None:
    """The first thing wrong with one value."""
    unit = f" {field.unit}" if field.unit else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind == "integer" and not (isinstance(value, int) and number):
        return Problem(pointer, "wrong_type", f"{field.title}: a whole number is wanted.")
    if field.kind == "number" and not number:
        return Problem(pointer, "wrong_type", f"{field.title}: a number is wanted.")
    if field.kind == "boolean" and not isinstance(value, bool):
        return Problem(pointer, "wrong_type", f"{field.title}: true or false is wanted.")
    if field.kind in ("string", "enum", "storage-class") and not isinstance(value, str):
        return Problem(pointer, "wrong_type", f"{field.title}: a text is wanted.")
    if field.kind == "map" and not (
        isinstance(value, dict) and len(value) <= LARGEST_MAP and all(isinstance(item, str) for item in value.values())
    ):
        return Problem(pointer, "wrong_type", f"{field.title}: an object of at most {LARGEST_MAP} texts is wanted.")
    if field.kind == "enum" and value not in field.choices:
        return Problem(pointer, "not_a_choice", f"{field.title}: choose one of {', '.join(field.choices)}.")
    if number:
        low = field.minimum is not None and value < field.minimum
        high = field.maximum is not None and value > field.maximum
        if low or high or value != value:
            limits = f"{field.minimum:g} to {field.maximum:g}" if field.maximum is not None else f"{field.minimum:g} up"
            return Problem(pointer, "out_of_range", f"{field.title}: {limits}{unit} is allowed, {value:g} was sent.")
    return None


def plan_problems(engine: Engine, values: Mapping[str, Any], storage_classes: Sequence[str]) -> list[Problem]:
    """What is wrong with a plan's values: kinds, limits, and, with the engine's defaults for the rest, the rules
    between fields. Pointers are below /values. What depends on a target (nodes, storage classes) each order checks.
    """
    fields = {field.key: field for field in engine.fields}
    problems = [_unknown(key, engine) for key in values if key not in fields]
    problems += [wrong for key, value in values.items() if key in fields for wrong in _all_wrong(fields[key], value)]
    if problems:
        return problems
    spec = {key: values.get(key, field.default) for key, field in fields.items()}
    for field in engine.fields:
        if field.kind == "storage-class" and storage_classes and spec[field.key] not in storage_classes:
            text = f"{field.title}: {spec[field.key]!r} is not among the plan's storage_classes; set it to one of them."
            problems.append(Problem(f"/{field.key}", "not_allowed", text))
    return [*problems, *engine.check(spec)]
