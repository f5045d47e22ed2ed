"""Calico on the embedded target, without Calico: its kinds, and a model of its address management.

For tests of what is built on Calico's IPReservation. Nothing here is Calico's code, and no dataplane is imitated.
"""

from __future__ import annotations
