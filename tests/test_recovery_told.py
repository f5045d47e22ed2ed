"""What docs/engines/redis.md says of recovery, beside what is caused and measured."""

from __future__ import annotations

from pathlib import Path

from dev.bench_recovery import FAULTS, SWAP, SWAP_CODE

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/engines/redis.md"


def first_column(heading: str) -> list[str]:
    """Of the first table below a heading, its own heading and line aside."""
    text = DOCUMENT.read_text().partition(f"### {heading}\n")[2].partition("\n### ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows[1:]]


def test_every_fault_whose_time_to_recover_is_told_is_measured_under_that_name() -> None:
    assert sorted(first_column("How long it takes")) == sorted([*FAULTS, SWAP])


def test_every_cause_that_is_to_be_named_is_explained() -> None:
    explained = {code.strip("` ") for cell in first_column("Why it is not well") for code in cell.split(",")}
    named = {SWAP_CODE} | {code for fault in FAULTS.values() for code in fault.codes}
    assert named - explained == set()
