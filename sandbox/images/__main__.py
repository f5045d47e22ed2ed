"""`python -m sandbox.images`: list, build, save and pin, for people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sandbox.images import oci
from sandbox.images.build import ImageError, ensure
from sandbox.images.maven import JarUnavailable, lock
from sandbox.images.store import blobs_of
from sandbox.images.table import IMAGES


def main(argv: list[str]) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the references the sandbox can make")
    save = commands.add_parser("save", help="write images as one OCI tar, for `ctr images import` or `docker load`")
    save.add_argument("-o", "--output", type=Path, required=True)
    save.add_argument("refs", nargs="+", metavar="ref")
    pin = commands.add_parser("lock", help="print the pinned list of jars that coordinates need at run time")
    pin.add_argument("coordinates", nargs="+", metavar="group:artifact:version[:classifier]")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "list":
            print("\n".join(f"{ref}{'' if image.default else '  (on demand)'}" for ref, image in IMAGES.items()))
        elif arguments.command == "save":
            paths = ensure(arguments.refs, progress=lambda line: print(line, file=sys.stderr))
            with arguments.output.open("wb") as out:
                oci.write_archive(*blobs_of(list(paths.values())), out)
        else:
            print(f"# python -m sandbox.images lock {' '.join(arguments.coordinates)}")
            print("\n".join(jar.line() for jar in lock(arguments.coordinates)))
    except (ImageError, JarUnavailable, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
