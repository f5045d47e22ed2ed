"""What can go wrong with the embedded target, in words for the person at the terminal."""

from __future__ import annotations


class SandboxError(Exception):
    """The message says what is wrong and what to do about it."""


class Unsupported(SandboxError):
    """This machine cannot run the embedded target; the message lists why and names the way around it."""
