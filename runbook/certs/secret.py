"""Bytes that must never be shown: private keys and passwords."""

from __future__ import annotations

import hmac
from typing import NoReturn, Self


class Secret:
    """Immutable bytes that only `reveal` gives out.

    `repr`, `str` and every format show the length alone, so tracebacks with locals, dataclass reprs, logs and notebook
    outputs stay clean. It can't be pickled, and JSON and YAML writers refuse it. Equality takes constant time.

    Args:
        value: The bytes to keep.

    Raises:
        TypeError: The value is not bytes; the message doesn't show it.
    """

    __slots__ = ("__value",)
    __value: bytes

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"a secret is made of bytes, not {type(value).__name__}")
        object.__setattr__(self, "_Secret__value", value)

    def reveal(self) -> bytes:
        """The bytes themselves. Pass them on within the expression: a local variable would stand in a traceback."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret(<{len(self.__value)} bytes>)"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self.__value, other.__value) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __setattr__(self, _name: str, _value: object) -> NoReturn:
        raise AttributeError("a secret can't be changed")

    def __delattr__(self, _name: str) -> NoReturn:
        raise AttributeError("a secret can't be changed")

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret can't be pickled")
