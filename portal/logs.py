"""Log lines of every process: one JSON object per line, or text for people (BERTH_LOG_FORMAT=text).

Each line carries the request id and the user it belongs to; what a caller passes in `extra` (such as operation_id) is
added. Bodies, tokens and query strings are never logged.
"""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
user_id: ContextVar[int | None] = ContextVar("user_id", default=None)

# What a LogRecord always has; everything else on it came through `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "request_id", "user_id", "request", "server_time", "taskName", "color_message",
}  # fmt: skip


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed in `extra`."""
    return {key: value for key, value in vars(record).items() if key not in STANDARD and not key.startswith("_")}


class ContextFilter(logging.Filter):
    """Puts the present request id and user id on the record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = getattr(record, "request_id", "") or request_id.get()
        record.user_id = getattr(record, "user_id", None) or user_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if getattr(record, "request_id", ""):
            line["request_id"] = vars(record)["request_id"]
        if getattr(record, "user_id", None) is not None:
            line["user_id"] = vars(record)["user_id"]
        line.update(extras(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        context = {"request_id": getattr(record, "request_id", ""), **extras(record)}
        return super().formatMessage(record) + "".join(f" {key}={value}" for key, value in context.items() if value)


def configuration(format: str, level: str) -> dict[str, Any]:
    """The dictConfig of a process; `format` is "json" or "text"."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": "portal.logs.ContextFilter"}},
        "formatters": {
            "json": {"()": "portal.logs.JsonFormatter"},
            "text": {"()": "portal.logs.TextFormatter"},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "filters": ["context"], "formatter": format},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Django's own handlers would write a second line in another format.
            "django": {"handlers": [], "propagate": True},
            "django.server": {"handlers": [], "propagate": True},
            # Every 4xx would come twice: the access line has it already. 5xx are logged with their traceback as errors.
            "django.request": {"level": "ERROR"},
            "django.security.csrf": {"level": "ERROR"},
            # At DEBUG it writes PKCE's verifier, a secret of the sign-in.
            "authlib": {"level": "INFO"},
            "gunicorn.error": {"handlers": [], "propagate": True},
            "gunicorn.access": {"handlers": [], "propagate": False},
        },
    }


def configure(settings: Mapping[str, str]) -> None:
    """Django's LOGGING_CONFIG: set logging up from {"format": ..., "level": ...}."""
    logging.config.dictConfig(configuration(settings["format"], settings["level"]))
