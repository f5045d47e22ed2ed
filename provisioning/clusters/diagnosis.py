"""Why a cluster is not there yet: the likeliest cause first, in plain words, with the object it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provisioning.engines.base import World


@dataclass(frozen=True)
class Cause:
    """`blocks` names the step it holds up: "schedule" or "start"; `code` is for programs, "" for mere patience."""

    blocks: str
    reason: str
    object: str
    code: str = ""


def causes(world: World) -> list[Cause]:
    """All causes found, the likeliest first: a pod not placed, a failing container, a volume, patience."""
    found: list[tuple[int, Cause]] = []
    for pod in world.pods:
        if pod.deleting:
            found.append((5, Cause("start", f"{pod.name} is ending before it is started anew", f"pod/{pod.name}")))
        elif pod.problem.startswith("not placed"):
            found.append((0, Cause("schedule", _placement(pod.name, pod.problem), f"pod/{pod.name}", "pod-not-placed")))
        elif pod.problem and not pod.started:
            # Of what stands beside the engine's own container the engine tells.
            found.append(
                (1, Cause("start", f"{pod.name}: {_container(pod.problem)}", f"pod/{pod.name}", "container-fails"))
            )
        elif not pod.node:
            found.append((3, Cause("schedule", f"{pod.name} is about to be placed", f"pod/{pod.name}")))
        elif not pod.started:
            found.append((4, Cause("start", f"{pod.name} is starting on {pod.node}", f"pod/{pod.name}")))
    for volume in world.volumes:
        if volume.phase != "Bound":
            text = f"volume {volume.name} {volume.problem}"
            found.append((2, Cause("schedule", text, f"pvc/{volume.name}", "volume-not-bound")))
        elif volume.capacity_mib < volume.requested_mib:
            text = f"volume {volume.name} grows from {volume.capacity_mib} to {volume.requested_mib} MiB"
            found.append((2, Cause("schedule", text, f"pvc/{volume.name}")))
    return [cause for _, cause in sorted(found, key=lambda entry: entry[0])]


def _placement(pod: str, problem: str) -> str:
    said = problem.removeprefix("not placed: ")
    if "anti-affinity" in said:
        return f"no node may take {pod}: the spread rule wants every member of a shard on a node of its own ({said})"
    short = re.search(r"Insufficient (cpu|memory)", said)
    if short:
        return f"no node has enough {short[1]} left for {pod} ({said}); choose a smaller plan or free some"
    if "unbound immediate PersistentVolumeClaims" in said or "volume" in said:
        return f"{pod} waits for its volume ({said})"
    return f"{pod} cannot be placed: {said}"


def _container(problem: str) -> str:
    if "ImagePull" in problem or "ErrImage" in problem:
        return f"its image cannot be pulled ({problem}); an administrator checks BERTH_IMAGE_REGISTRY"
    return problem
