"""Has every node know exactly the wished users, and tells who may still use an old password.

Redis describes a user's rules in words of its own. So what a node said right after it was told is remembered, and a
node that says anything else later is told again. That is no change where nothing differs: connections are not touched.

Redis keeps no record of which password a connection signed in with, nor when one was last used. What can be known: a
connection that was opened before the newest password worked has used an older one. Whoever connects with an old one
after that looks like everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from provisioning.engines.base import Link, LinkError, OldPassword, User, UsersSeen
from provisioning.engines.redis import users
from provisioning.engines.redis.admin import RedisError
from provisioning.engines.redis.manifests import auth_secret
from provisioning.engines.redis.sight import PARALLEL, Node, Sight

# Wished line to what nodes answered once they were told it. Servers of several versions may answer differently.
_described: dict[str, set[str]] = {}
MOST_REMEMBERED = 10_000
Commands = list[Sequence[str | int]]


def settle_users(sight: Sight, link: Link) -> tuple[str, UsersSeen | None]:
    """Have every node that answers know the wished users, and sign in to each other as Berth's own.

    Returns what went wrong, and how users stand; ("", None) where they were not looked up. Raises LinkError when the
    Secret cannot be read.
    """
    wished = sight.cluster.users
    secret = link.secret(auth_secret(sight.cluster))
    if wished is None or users.ACL_KEY not in secret:
        return "", None
    lines = users.lines(wished, secret)
    nodes = sight.everyone

    def settle(node: Node) -> tuple[str, list[tuple[str, str, bool]]]:
        try:
            return "", _settle(node, lines)
        except (LinkError, RedisError) as error:
            return f"{node.pod.name} cannot be told its users: {error}", []

    with ThreadPoolExecutor(PARALLEL) as pool:
        told = list(pool.map(settle, nodes))
    for node, (_, events) in zip(nodes, told, strict=True):
        for reason, text, warning in events:
            link.event(reason, text, warning=warning, object=f"pod/{node.pod.name}")
    complaint = next((why for why, _ in told if why), "")
    # Only now: a replica signs in to its master anew, which must know Berth's own user.
    complaint = complaint or _settle_replication(nodes, secret[users.SYSTEM_KEY])
    lacking = [key for user in wished for key in users.keys(user) if key not in secret]
    away = [*sight.missing, *sight.gone, *sight.excused]
    waits = complaint
    if not waits and lacking:
        waits = f"{auth_secret(sight.cluster)} does not hold {lacking[0]} yet"
    if not waits and away:
        waits = f"{away[0]} has not been told yet"
    return complaint, UsersSeen(not waits, waits, {} if waits else _watch(nodes, wished))


def _settle(node: Node, lines: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """One node; returns what was done, as (reason, text, warning). Raises LinkError, RedisError."""
    before = _list(node)
    events: list[tuple[str, str, bool]] = []
    commands: Commands = []
    for name, line in lines.items():
        there = before.get(name, "")
        if there and there in _described.get(line, ()):
            continue
        commands += _set_user(name, line, there)
    gone = [name for name in before if name not in lines]
    if gone:
        commands.append(["ACL", "DELUSER", *gone])
        events.append(("UsersRemoved", f"{', '.join(gone)}: of no use to anybody here any more", False))
    if not commands:
        return []
    replies = node.connection.pipeline(commands)
    refused = next((reply for reply in replies if isinstance(reply, RedisError)), None)
    if refused is not None:
        raise refused
    after = _list(node)
    for name, line in lines.items():
        if after.get(name) is None:
            raise RedisError(f"ERR the user {name} was made and is not there")
        if len(_described) > MOST_REMEMBERED:
            _described.clear()
        _described.setdefault(line, set()).add(after[name])
    changed = [name for name in lines if _plain(after[name]) != _plain(before.get(name, ""))]
    if changed:
        events.append(("UsersSet", f"{', '.join(changed)}: passwords and rights as wished", False))
    return events


def _set_user(name: str, line: str, there: str) -> Commands:
    """Make one user as wished. Where a password no longer counts, everybody who signed in as that user is cut off too,
    since nobody can tell who used which; whoever has another one comes back at once.
    """
    wished = line.split()[1:]
    taken = _hashes(there.split()) - _hashes(wished)
    commands: Commands = [["ACL", "SETUSER", name, "reset", *wished]]
    if taken or " nopass " in f"{there} ":
        commands.append(["CLIENT", "KILL", "USER", name])
    return commands


def _plain(line: str) -> list[str]:
    """A description without the flag that a user has or has not by how it was made; it means the same."""
    return [word for word in line.split() if word != "sanitize-payload"]


def _hashes(words: Sequence[str]) -> set[str]:
    return {word for word in words if word.startswith("#")}


def _list(node: Node) -> dict[str, str]:
    """Name to definition, as the node tells it."""
    reply = node.connection.call("ACL", "LIST")
    found = [str(line).removeprefix("user ") for line in reply] if isinstance(reply, list) else []
    return {line.partition(" ")[0]: line for line in found}


def _settle_replication(nodes: Sequence[Node], password: str) -> str:
    """Have replicas sign in to their masters as Berth's own user. Nodes start so; an older Berth started them else."""
    complaint = ""
    for node in nodes:
        try:
            reply = node.connection.call("CONFIG", "GET", "masteruser", "masterauth")
            words = [str(word) for word in reply] if isinstance(reply, list) else []
            have = dict(zip(words[::2], words[1::2], strict=True))
            if have != {"masteruser": users.SYSTEM, "masterauth": password}:
                node.connection.call("CONFIG", "SET", "masteruser", users.SYSTEM, "masterauth", password)
        except (LinkError, RedisError) as error:
            complaint = complaint or f"{node.pod.name} cannot be told how to sign in to its master: {error}"
    return complaint


def _watch(nodes: Sequence[Node], wished: Sequence[User]) -> dict[str, OldPassword]:
    """Who may still use the old passwords of the users to be watched; nothing when a node does not say."""
    watched = {user.name: user for user in wished if user.watched and len(user.versions) > 1}
    if not watched:
        return {}
    old: dict[str, list[datetime]] = {name: [] for name in watched}
    for node in nodes:
        try:
            text = node.connection.text("CLIENT", "LIST")
        except (LinkError, RedisError):
            return {}
        now = datetime.now(UTC)
        for line in text.splitlines():
            client = dict(word.partition("=")[::2] for word in line.split(" "))
            user = watched.get(client.get("user", ""))
            # Ages are whole seconds, rounded down.
            opened = now - timedelta(seconds=int(client.get("age", 0)))
            if user is not None and (user.newest_since is None or opened <= user.newest_since + timedelta(seconds=1)):
                old[user.name].append(now - timedelta(seconds=int(client.get("idle", 0))))
    return {name: OldPassword(len(seen), max(seen, default=None)) for name, seen in old.items()}
