"""Where the servers of the simulation are; known to both sides, which have environments of their own."""

from __future__ import annotations


def address(number: int) -> str:
    """The address of a server, from 0 on; 127.0.0.0/8 is all this machine."""
    return f"127.64.{number // 250}.{number % 250 + 1}"
