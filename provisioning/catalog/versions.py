"""Which versions a running cluster may go to: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def reachable(upgrades: Mapping[str, Sequence[str]], version: str) -> set[str]:
    """All versions above this one, over any number of steps."""
    found: set[str] = set()
    ahead = [version]
    while ahead:
        for after in upgrades.get(ahead.pop(), ()):
            if after not in found:
                found.add(after)
                ahead.append(after)
    return found


def upgrade_refused(upgrades: Mapping[str, Sequence[str]], before: str, after: str, title: str) -> str:
    """Why a cluster of version `before` cannot go to `after`, with what it can do; "" when it can."""
    nexts = upgrades.get(before, ())
    if after in nexts:
        return ""
    offer = f"From {before} it can go to {', '.join(nexts)}." if nexts else f"From {before} there is no upgrade yet."
    if before in reachable(upgrades, after):
        return (
            f"{title} never goes back: an older version cannot read what a newer one wrote. Order a new cluster of "
            f"{after} and copy the data. {offer}"
        )
    if after in reachable(upgrades, before):
        first = [one for one in nexts if one == after or after in reachable(upgrades, one)]
        return f"{title} goes to {after} over {first[0]}: no version in between is left out. {offer}"
    return f"{title} {before} cannot go to {after}: that was never tried. {offer}"
