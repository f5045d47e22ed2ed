"""The users of a cluster: names, passwords in its Secret, and what a user may do as Redis' rules. Pure.

Beside the clients' users there is Berth's own, `berth`: the reconciler, replication, the exporter and the scripts in
the pods sign in with it, so that every other password can change, and every other user go, without any of them
noticing.

The Secret `<cluster>-auth` holds, as the pods mount it:

- `password` and `user.<name>`: the newest password of `default` and of each other user, for people and workloads that
  read it there;
- `user.<name>.<version>`: every password that is to work;
- `system`: the password of `berth`;
- `acl.conf`: all users with their rules and the SHA-256 of their passwords, which start.sh includes: no node ever
  serves without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from provisioning.engines.base import Access, CommandGroup, MakePassword, Problem, User, UserRules

SYSTEM, SYSTEM_KEY = "berth", "system"
DEFAULT, DEFAULT_KEY = "default", "password"
ACL_KEY = "acl.conf"
PASSWORD_LENGTH = 32
ALL = "*"

# Group to its rules, see https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/. Of scripting only
# the running of scripts: functions are shared by all users of a node.
GROUPS: Mapping[str, tuple[CommandGroup, str]] = {
    one.key: (one, rules)
    for one, rules in (
        (CommandGroup("read", "Read", "Read the values of keys."), "+@read"),
        (CommandGroup("write", "Write", "Write and delete keys."), "+@write"),
        (CommandGroup("transaction", "Transactions", "MULTI, EXEC and WATCH."), "+@transaction"),
        (CommandGroup("pubsub", "Channels", "Publish and subscribe on the channels named."), "+@pubsub"),
        (
            CommandGroup("scripting", "Scripts", "Run Lua scripts and functions, within the user's other rights."),
            "+eval +eval_ro +evalsha +evalsha_ro +fcall +fcall_ro +script|load +script|exists",
        ),
        (CommandGroup("string", "Strings", "All commands of strings."), "+@string"),
        (CommandGroup("hash", "Hashes", "All commands of hashes."), "+@hash"),
        (CommandGroup("list", "Lists", "All commands of lists."), "+@list"),
        (CommandGroup("set", "Sets", "All commands of sets."), "+@set"),
        (CommandGroup("sortedset", "Sorted sets", "All commands of sorted sets."), "+@sortedset"),
        (CommandGroup("stream", "Streams", "All commands of streams."), "+@stream"),
        (CommandGroup("bitmap", "Bitmaps", "All commands of bitmaps."), "+@bitmap"),
        (CommandGroup("hyperloglog", "HyperLogLogs", "All commands of HyperLogLogs."), "+@hyperloglog"),
        (CommandGroup("geo", "Places", "All commands of geospatial keys."), "+@geo"),
    )
}
RULES = UserRules(50, (SYSTEM, DEFAULT), tuple(group for group, _ in GROUPS.values()))

# What a cluster client needs to sign in and to find its way.
ALWAYS = "+@connection"
FINDING = "+cluster|slots +cluster|shards +cluster|nodes +cluster|info +cluster|keyslot +cluster|myid +cluster|help"
# Whatever the groups say: what administers, empties or examines the whole node, and functions of all users.
NEVER = "-@admin -@dangerous -function"
# These tell about keys and channels of others.
NEVER_WITH_KEY_PREFIX = "-scan -randomkey -dbsize"
NEVER_WITH_CHANNEL_PREFIX = "-pubsub"

# Neither white space nor what a Redis pattern gives a meaning; {} is for hash tags.
PREFIX = re.compile(r"[A-Za-z0-9_.:;,/@#|{}=+-]{1,100}")
MOST_PREFIXES = 20


def check(name: str, access: Access) -> list[Problem]:
    """Rules of a user's access, see engines.base.Engine.check_user."""
    problems = []
    for key, prefixes in (("key_prefixes", access.key_prefixes), ("channel_prefixes", access.channel_prefixes)):
        if len(prefixes) > MOST_PREFIXES:
            problems.append(Problem(f"/{key}", "too_many", f"At most {MOST_PREFIXES} prefixes."))
        if ALL in prefixes and len(prefixes) > 1:
            problems.append(Problem(f"/{key}", "all_and_more", "* stands for all: leave the others out."))
        problems += [
            Problem(
                f"/{key}/{number}", "bad_prefix",
                f"{prefix[:60]!r}: take 1 to 100 letters, digits and _.:;,/@#|{{}}=+- for each, or * alone for all.",
            )
            for number, prefix in enumerate(prefixes)
            if prefix != ALL and not PREFIX.fullmatch(prefix)
        ]  # fmt: skip
    for number, group in enumerate(access.commands):
        if group not in GROUPS:
            text = f"There is no group {group[:40]!r} of commands. There are: {', '.join(GROUPS)}."
            problems.append(Problem(f"/commands/{number}", "unknown_group", text))
    if not access.commands:
        problems.append(Problem("/commands", "none", "Name at least one group of commands."))
    if not access.key_prefixes and not access.channel_prefixes:
        problems.append(Problem("/key_prefixes", "none", f"{name} could reach nothing: name a prefix, or * for all."))
    return problems


def rules(user: User) -> str:
    """A user's switch, keys, channels and commands, as ACL SETUSER takes them after `reset`; without passwords."""
    words = ["on" if user.enabled else "off"]
    access = user.access
    if access is None:
        return " ".join([*words, "~*", "&*", "+@all"])
    words += [_pattern("~", prefix) for prefix in sorted(access.key_prefixes)]
    words += [_pattern("&", prefix) for prefix in sorted(access.channel_prefixes)]
    words += ["-@all", ALWAYS, *(rules for key, (_, rules) in GROUPS.items() if key in access.commands), NEVER, FINDING]
    if "scripting" in access.commands:
        # Taken away above with all else that is about functions.
        words.append("+fcall +fcall_ro")
    if ALL not in access.key_prefixes:
        words.append(NEVER_WITH_KEY_PREFIX)
    if ALL not in access.channel_prefixes:
        words.append(NEVER_WITH_CHANNEL_PREFIX)
    return " ".join(words)


def _pattern(sign: str, prefix: str) -> str:
    return f"{sign}*" if prefix == ALL else f"{sign}{prefix}*"


def password_key(name: str, version: int) -> str:
    """Key of one password in the Secret. Names hold no dot."""
    return f"user.{name}.{version}"


def keys(user: User) -> list[str]:
    """Keys of a user's passwords that are to work, the newest first."""
    return [password_key(user.name, version) for version in user.versions]


def newest_key(name: str) -> str:
    """Key of a user's newest password."""
    return DEFAULT_KEY if name == DEFAULT else f"user.{name}"


def secret_content(users: Sequence[User], stored: Mapping[str, str], make: MakePassword) -> dict[str, str]:
    """What the Secret is to hold: what it holds, with passwords made for versions that are new, without those that are
    no longer wished, and with `acl.conf` to match.

    Clusters made before there were users have `password` only, which is the first version of `default`.
    """
    kept = {key: value for key, value in stored.items() if not key.startswith("user.")}
    passwords: dict[str, str] = {}
    for user in users:
        for version in user.versions:
            key = password_key(user.name, version)
            first = stored.get(DEFAULT_KEY, "") if (user.name, version) == (DEFAULT, 1) else ""
            passwords[key] = stored.get(key) or first or make(PASSWORD_LENGTH)
    newest = {newest_key(user.name): passwords[password_key(user.name, user.versions[0])] for user in users}
    system = stored.get(SYSTEM_KEY) or make(PASSWORD_LENGTH)
    content = {**kept, **passwords, **newest, SYSTEM_KEY: system}
    content[ACL_KEY] = "".join(f"user {line}\n" for line in lines(users, content).values())
    return content


def lines(users: Sequence[User], secret: Mapping[str, str]) -> dict[str, str]:
    """Name to definition of every user nodes are to have: a line of a configuration file without the word `user`.

    Passwords that the Secret does not hold are left out.
    """
    # First: who is told by an older Berth's `default` must not lose its rights before there is another way in.
    found = {SYSTEM: f"{SYSTEM} {digest(secret[SYSTEM_KEY])} on ~* &* +@all"}
    for user in users:
        hashes = [digest(secret[key]) for key in keys(user) if key in secret]
        found[user.name] = " ".join([user.name, *hashes, rules(user)])
    return found


def digest(password: str) -> str:
    """A password as ACL rules write its hash."""
    return f"#{sha256(password.encode()).hexdigest()}"


def accounts(secret: Mapping[str, str]) -> list[tuple[str, str]]:
    """What Berth tries to sign in with, in order: its own user; then `default`, for nodes an older Berth started."""
    found = [(SYSTEM, secret[SYSTEM_KEY])] if SYSTEM_KEY in secret and ACL_KEY in secret else []
    old = [value for key, value in sorted(secret.items()) if key.startswith(f"user.{DEFAULT}.")]
    return [*found, *(("", password) for password in dict.fromkeys([secret[DEFAULT_KEY], *old]))]
