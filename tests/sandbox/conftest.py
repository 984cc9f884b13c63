"""A practice cluster for each module that asks for one."""

from __future__ import annotations

from clusters import binaries, built, fleet, practice, virgin

__all__ = ["binaries", "built", "fleet", "practice", "virgin"]
