"""The committed OpenAPI document, docs/openapi.json: `python -m dev.openapi --check` or `--write`.

The frontend's types are generated from it, so a change of the API shows up in review. Needs no database.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dev.static_settings")
django.setup()

from drf_spectacular.drainage import GENERATOR_STATS  # noqa: E402

from portal.api.schema import document  # noqa: E402

PATH = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def rendered() -> str:
    """The document as committed. Raises SystemExit when the generator could not describe something."""
    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if GENERATOR_STATS:
        GENERATOR_STATS.emit_summary()
        raise SystemExit("The API cannot be described completely: see the warnings above.")
    return text


def main() -> int:
    """Write the document, or compare it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.openapi", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="fail when the committed document is out of date")
    choice.add_argument("--write", action="store_true", help="write it")
    arguments = parser.parse_args()
    text = rendered()
    if arguments.write:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(text, encoding="utf-8")
    elif not PATH.exists() or PATH.read_text(encoding="utf-8") != text:
        print("docs/openapi.json is out of date. Run: make types", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
