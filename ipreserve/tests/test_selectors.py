"""The language in which Calico's pools select nodes."""

from __future__ import annotations

import pytest

from ipreserve.selectors import selector

LABELS = {"rack": "a1", "kubernetes.io/os": "linux", "zone": "north"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("all()", True),
        (" all( ) ", True),
        ("!all()", False),
        ("has(rack)", True),
        ("has( kubernetes.io/os )", True),
        ("!has(gpu)", True),
        ("rack == 'a1'", True),
        ('rack == "a2"', False),
        ("gpu == ''", False),
        ("rack != 'a2'", True),
        ("gpu != 'yes'", True),
        ("rack in {'a1', \"b1\"}", True),
        ("gpu in {'yes'}", False),
        ("rack in {}", False),
        ("rack not in {'a1'}", False),
        ("gpu not in {'yes'}", True),
        ("rack contains '1'", True),
        ("rack starts with 'b'", False),
        ("rack ends with '1'", True),
        ("gpu contains ''", False),
        ("has(gpu) || zone == 'north' && rack == 'a1'", True),
        ("(has(gpu) || zone == 'north') && rack == 'b'", False),
        ("!(has(gpu) || has(rack))", False),
        ("kubernetes.io/os=='linux'&&!has(gpu)", True),
    ],
)
def test_selector_means_what_it_means_to_calico(text: str, matches: bool) -> None:
    assert selector(text)(LABELS) is matches


@pytest.mark.parametrize(
    "text", ["rack", "rack ==", "rack == a1", "rack = 'a1'", "has(rack", "all() all()", "rack in 'a'", "&& all()", "'"]
)
def test_selector_that_calico_would_not_take_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a selector of Calico's"):
        selector(text)
