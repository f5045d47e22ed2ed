"""Tests run on a private PostgreSQL and Redis of their own.

A plugin named in pyproject.toml and not a conftest.py, since it must run before pytest-django reads the settings.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest

from dev.services import private_services

_stack = contextlib.ExitStack()


def _prepare() -> None:
    os.environ.setdefault("BERTH_SECRET_KEY", secrets.token_urlsafe(40))
    os.environ.setdefault("BERTH_LOG_FORMAT", "text")
    os.environ.setdefault("BERTH_SECURE_COOKIES", "0")
    # All tests call from one address, without being signed in too; each makes a token of its own otherwise.
    os.environ.setdefault("BERTH_RATE_LIMIT_ADDRESS", "1000000")
    given = "DATABASE_URL" in os.environ and "BERTH_BROKER_URL" in os.environ
    # Each of several processes of a run has its own: rows of the same ids share the broker's keys otherwise.
    if given and "PYTEST_XDIST_WORKER" not in os.environ:
        return  # somebody's own
    folder = Path(tempfile.mkdtemp(prefix="berth-t-", dir="/tmp"))
    folder.chmod(0o755)
    _stack.callback(shutil.rmtree, folder, ignore_errors=True)
    services = _stack.enter_context(private_services(folder, fast=True))
    os.environ.update(services.environment())


_prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the private services, whatever happened."""
    _stack.close()
