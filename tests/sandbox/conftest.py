"""A practice cluster for each module that asks for one."""

from __future__ import annotations

from clusters import binaries, built, practice, virgin

__all__ = ["binaries", "built", "practice", "virgin"]
