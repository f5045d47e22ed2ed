"""docs/api.md is a session to paste into a shell: it is pasted here, whole."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from dev.stack import Stack

pytestmark = pytest.mark.sandbox

TOUR = Path(__file__).resolve().parents[2] / "docs" / "api.md"
DEADLINE_SECONDS = 300


def test_the_tour_of_the_api_works_as_it_is_written(stack: Stack) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TOUR.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    environment = {**os.environ, "BERTH": stack.url, "BERTH_USER": "alice", "BERTH_PASSWORD": stack.password}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail"], input="\n".join(blocks), env=environment, capture_output=True, text=True,
        timeout=DEADLINE_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    for said in ("redis-dev", "Wrote and read", '"role": "master"', "from the tour", "bad_name"):
        assert said in ran.stdout
