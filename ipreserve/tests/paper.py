"""An API server on paper, for what a real one does not do on demand: one object that cannot be written, an answer that
does not come."""

from __future__ import annotations

import copy
import itertools
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from ipreserve import errors, kube
from ipreserve.kube import JsonObject

CALICO = kube.CalicoApi("projectcalico.org", "v3", aggregated=False, kinds=frozenset({"ipreservations"}))


class Paper(kube.Kube):
    """Objects by their path, with versions. `before` is asked about each request, `written` about each body; both may
    raise."""

    def __init__(self) -> None:
        super().__init__("https://127.0.0.1:1", context=ssl.create_default_context())
        self.objects: dict[str, JsonObject] = {}
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.written: Callable[[str, str, Mapping[str, Any]], None] = lambda method, path, body: None
        self._versions = itertools.count(1)

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | list[Any] | None = None, **more: Any
    ) -> JsonObject:  # fmt: skip
        self.before(method, path)
        if method == "GET":
            if path not in self.objects:
                items = [one for name, one in self.objects.items() if name.rpartition("/")[0] == path]
                if not items:
                    raise errors.NotFound(path, 404)
                return {"metadata": {}, "items": copy.deepcopy(items)}
            return copy.deepcopy(self.objects[path])
        assert isinstance(body, dict)
        dry_run = bool((more.get("query") or {}).get("dryRun"))
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
        self.written(method, path, body)
        there = self.objects.get(path)
        if (method == "POST") == (there is not None):
            raise errors.Conflict(path, 409)
        if there is not None and there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise errors.Conflict(path, 409)
        if dry_run:
            return copy.deepcopy(dict(body))
        metadata = {**body["metadata"], "resourceVersion": str(next(self._versions))}
        self.objects[path] = copy.deepcopy({**body, "metadata": metadata})
        return copy.deepcopy(self.objects[path])
