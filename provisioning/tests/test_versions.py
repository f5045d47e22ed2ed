"""Which versions a running cluster may go to."""

from __future__ import annotations

import pytest

from provisioning.catalog.versions import upgrade_refused
from provisioning.engines.registry import ENGINES

PATHS = {"1": ("2",), "2": ("3", "3b"), "3": ("4",)}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("1", "2", ""),
        ("2", "3b", ""),
        ("1", "3", "goes to 3 over 2"),
        ("1", "4", "goes to 4 over 2"),
        ("2", "4", "goes to 4 over 3:"),
        ("3", "1", "never goes back"),
        ("3b", "4", "never tried. From 3b there is no upgrade yet."),
    ],
)
def test_only_listed_steps_forward_are_taken_and_the_rule_is_said(before: str, after: str, told: str) -> None:
    refused = upgrade_refused(PATHS, before, after, "X")
    assert (refused == "") == (told == "")
    assert told in refused


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_every_path_of_an_engine_leads_from_and_to_versions_on_offer(engine: object) -> None:
    versions, upgrades = engine.versions, engine.upgrades  # type: ignore[attr-defined]
    assert {*upgrades, *(after for nexts in upgrades.values() for after in nexts)} <= set(versions)
