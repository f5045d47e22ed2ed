"""`python -m sandbox`: the embedded target from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox import SandboxError, faults
from sandbox.cluster import Sandbox
from sandbox.errors import Unsupported
from sandbox.layout import IPAMS, state_home


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m sandbox", description="Upstream Kubernetes on this machine.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--name", default="berth", help="which sandbox (default: berth)")
        return sub

    up = command("up", "start a sandbox; does nothing when it runs")
    up.add_argument("--nodes", type=int, help="how many (default: 3)")
    up.add_argument("--control-plane-only", action="store_true")
    up.add_argument("--ipam", choices=IPAMS, help="who gives pods addresses (default: host-local)")
    down = command("down", "end it; objects, volumes and images stay for the next up")
    down.add_argument("--wipe", action="store_true", help="remove everything on disk too")
    down.add_argument("--all", action="store_true", help="every sandbox there is")
    status = command("status", "what runs")
    status.add_argument("--json", action="store_true")
    logs = command("logs", "the end of a piece's log")
    logs.add_argument("piece", nargs="?", help="such as control-plane or kubelet-n1; without it, the list")
    logs.add_argument("--lines", type=int, default=50)
    command("kubeconfig", "print the path of the administrator's kubeconfig")
    run = command("exec", "run a program of this host in the sandbox's network, with its DNS")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    kubectl = command("kubectl", "kubectl as administrator")
    kubectl.add_argument("argv", nargs=argparse.REMAINDER)
    faults.add_arguments(command("fault", "break something on purpose"))
    return top


def _everything() -> list[str]:
    home = state_home()
    return sorted(path.name for path in home.iterdir() if path.is_dir()) if home.exists() else []


def _words(argv: Sequence[str]) -> list[str]:
    return list(argv[1:] if argv[:1] == ["--"] else argv)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit status."""
    match arguments.command:
        case "up":
            sandbox = Sandbox(
                arguments.name, nodes=arguments.nodes, control_plane_only=arguments.control_plane_only,
                ipam=arguments.ipam,
            )  # fmt: skip
            sandbox.up(progress=lambda line: print(line, flush=True))
            print(f"export KUBECONFIG={sandbox.kubeconfig_path}")
        case "down":
            for name in _everything() if arguments.all else [arguments.name]:
                Sandbox(name).down(wipe=arguments.wipe)
                print(f"sandbox {name}: down")
        case "status":
            found = Sandbox(arguments.name).status()
            if arguments.json:
                print(json.dumps(found, indent=1))
            else:
                print(f"sandbox {found['name']}: {'running' if found['running'] else 'not running'}")
                for piece, pid in found["pieces"].items():
                    print(f"  {piece:<25}{pid if pid is not None else 'not running'}")
                if "memory_bytes" in found:
                    print(f"  {found['memory_bytes'] / 2**30:.2f} GiB, {found['cpu_seconds']:.0f} s of CPU so far")
        case "logs":
            folder = Sandbox(arguments.name).layout.logs
            path: Path = folder / f"{arguments.piece}.log"
            if arguments.piece is None or not path.exists():
                raise SandboxError(f"Pieces with a log: {', '.join(sorted(log.stem for log in folder.glob('*.log')))}")
            print("\n".join(path.read_text(errors="replace").splitlines()[-arguments.lines :]))
        case "kubeconfig":
            print(Sandbox(arguments.name).kubeconfig_path)
        case "exec":
            argv = [*Sandbox(arguments.name).network_prefix(), *_words(arguments.argv)]
            os.execvp(argv[0], argv)
        case "kubectl":
            done = Sandbox(arguments.name).kubectl(*_words(arguments.argv))
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            return done.returncode
        case "fault":
            print(faults.run(Sandbox(arguments.name), arguments))
    return 0


def main() -> int:
    """Entry point: 0 done, 1 failed, 2 this machine cannot."""
    try:
        return run(parser().parse_args())
    except Unsupported as error:
        print(error, file=sys.stderr)
        return 2
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
