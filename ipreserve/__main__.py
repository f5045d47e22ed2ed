"""The commands of README.md. Each service is one process of its own."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from ipreserve import errors, install, kube, pool, records, settings, store, sweeper, webhook
from ipreserve.review import Selector

COMMANDS = ("webhook", "sweeper", "install", "uninstall", "history", "advice")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ipreserve", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        settings.add_flags(command)
        if name == "history":
            command.add_argument("address", metavar="ADDRESS")
            command.add_argument("--json", action="store_true")
        if name == "uninstall":
            command.add_argument("--purge", action="store_true")
    return parser


def _history(options: settings.Settings, text: str, *, as_json: bool) -> int:
    try:
        one = records.address(text)
    except ValueError as error:
        raise errors.Misconfigured(f"ADDRESS: {error}") from error
    door = kube.connect(options.kubeconfig)
    found = store.Store(door, options.namespace, lambda: kube.detect(door, options.calico_api)).history(one)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"{one}: nobody that this service knows of")
    for entry in found:
        ended = (
            f"{entry.get('end', 'taken over')} {entry['released']}" if "released" in entry else f"now {entry['state']}"
        )
        print(
            f"{one}  {entry['namespace']}/{entry['pod']} on {entry['node']}  first {entry['first']}  "
            f"freed {entry.get('freed', '-')}  {ended}"
        )
    return 0


def _advice(options: settings.Settings) -> int:
    one = sweeper.Sweeper(options, kube.connect(options.kubeconfig))
    try:
        return _advise(one)
    finally:
        # To know Calico's API is to watch its blocks.
        one.stop()


def _advise(one: sweeper.Sweeper) -> int:
    calico = one.calico()
    one.reload()
    spec: dict[str, Any] = kube.ipam_configuration(one.kube, calico)
    path = kube.ipam_path(one.kube, calico, "ippools")
    ranges = sweeper.ranges(one.kube.list(path)[0]) if path is not None else ()
    nodes, _ = one.kube.list("/api/v1/nodes")
    ipam = pool.Ipam(
        blocks=(), pools=ranges, strict=bool(spec.get("strictAffinity")),
        blocks_per_host=int(spec.get("maxBlocksPerHost") or pool.DEFAULT_BLOCKS_PER_HOST),
    )  # fmt: skip
    cooldown = spec.get("ipCooldownSeconds")
    largest = max(map(sweeper.pods_of, nodes), default=pool.DEFAULT_MAX_PODS)
    found = pool.advise(
        ipam, cooldown=None if cooldown is None else float(cooldown), pods_per_node=largest, rules=one.rules()
    )
    spaces, _ = one.kube.list("/api/v1/namespaces")
    found += [line for space in spaces for line in _almost_protected(space["metadata"], one.live.namespaces)]
    print(f"Calico's API: {calico.name} ({calico.api_version})")
    print("\n".join(found) if found else "all fits")
    return 0


def _almost_protected(space: Mapping[str, Any], protected: Selector) -> list[str]:
    """What is to be said of a namespace that bears the label that protects, with another value."""
    labels: Mapping[str, str] = space.get("labels") or {}
    return [
        f"namespace {space['name']}: {name}={labels[name]} protects nothing. Set {name}={value}, or remove it."
        for name, value in protected.labels.items()
        if labels.get(name, value) != value
    ]


def run(arguments: argparse.Namespace) -> int:
    """One command. Raises IpreserveError."""
    options = settings.from_arguments(vars(arguments))
    match arguments.command:
        case "webhook":
            return webhook.main(options)
        case "sweeper":
            return sweeper.main(options)
        case "history":
            return _history(options, arguments.address, as_json=arguments.json)
        case "advice":
            return _advice(options)
    door = kube.connect(options.kubeconfig)
    if arguments.command == "install":
        done = install.install(door, namespace=options.namespace, url=options.url, give_back=options.give_back)
    else:
        kept = store.Store(door, options.namespace, lambda: kube.detect(door, options.calico_api))
        done = install.uninstall(door, kept, namespace=options.namespace, purge=arguments.purge)
    print("\n".join(done) if done else "nothing was there")
    return 0


def main() -> int:
    """Exit status 0, or 1 with one sentence on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.Formatter.default_msec_format = "%s.%03d"
    try:
        return run(_parser().parse_args())
    except errors.IpreserveError as error:
        print(f"ipreserve: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
