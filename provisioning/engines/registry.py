"""The engines on offer. Adding one is adding its folder and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from provisioning.engines.base import Engine

ENGINES: Mapping[str, Engine] = {}
