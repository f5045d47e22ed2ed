"""Checks of the Django project that need no database: system checks and missing migrations. For `make check`."""

from __future__ import annotations

import django
from django.core.management import call_command


def main() -> None:
    """Exit non-zero with the finding when something is wrong."""
    django.setup()
    call_command("check", fail_level="ERROR")
    call_command("makemigrations", check=True, dry_run=True, skip_checks=True)


if __name__ == "__main__":
    main()
