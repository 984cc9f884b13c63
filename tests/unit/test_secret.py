"""Secret: bytes that no output can show by accident."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import traceback

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook.certs.secret import Secret

PRIVATE = b"correct horse battery staple"


@dataclasses.dataclass(frozen=True)
class Holder:
    key: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        pprint.pformat,
        lambda secret: f"{secret!r}{secret!s}{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  # this form is what is looked at
        lambda secret: repr(Holder(secret)),
        lambda secret: repr([secret, {"key": secret}]),
        lambda secret: str(dataclasses.asdict(Holder(secret))),
    ],
)
def test_every_text_of_it_shows_the_length_alone(show) -> None:  # noqa: ANN001
    """Whatever makes text of a secret shows its length in its place."""
    text = show(Secret(PRIVATE))
    assert "Secret(<28 bytes>)" in text
    assert "horse" not in text


def test_reveal_gives_the_bytes() -> None:
    """`reveal` alone gives the bytes out."""
    assert Secret(PRIVATE).reveal() == PRIVATE


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_equality_and_hash_are_those_of_the_bytes(one: bytes, other: bytes) -> None:
    """Two secrets are equal exactly when their bytes are, and then hash alike; none equals plain bytes."""
    assert (Secret(one) == Secret(other)) == (one == other)
    assert hash(Secret(one)) == hash(Secret(bytes(bytearray(one))))
    assert Secret(one) != one


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused(protocol: int) -> None:
    """No pickle protocol takes it along, not inside of something else either."""
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(Holder(Secret(PRIVATE)), protocol)


def test_json_and_yaml_refuse_it() -> None:
    """The writers of records and params raise instead of writing it."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"key": Secret(PRIVATE)})
    with pytest.raises(TypeError, match="can't be pickled"):
        yaml.dump({"key": Secret(PRIVATE)})


def test_it_has_no_way_round_reveal() -> None:
    """It has no attribute dictionary, length, items, or bytes conversion."""
    secret = Secret(PRIVATE)
    for convert in (bytes, bytearray, list, len, iter, vars):
        with pytest.raises(TypeError):
            convert(secret)  # type: ignore[operator]


def test_it_cannot_be_changed() -> None:
    """Attributes can be neither set, nor added, nor deleted."""
    secret = Secret(PRIVATE)
    with pytest.raises(AttributeError):
        secret._Secret__value = b""  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        secret.more = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        del secret._Secret__value  # type: ignore[attr-defined]
    assert secret.reveal() == PRIVATE


def test_copies_are_the_same_object() -> None:
    """Copying makes no second copy of the bytes."""
    secret = Secret(PRIVATE)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_other_types_are_refused_unseen() -> None:
    """Text instead of bytes is refused, by an error that doesn't show it."""
    with pytest.raises(TypeError) as caught:
        Secret(PRIVATE.decode())  # type: ignore[arg-type]
    assert "horse" not in str(caught.value)


def test_a_traceback_with_locals_does_not_show_it() -> None:
    """Tracebacks that print local variables, as pytest and rich do, show the masked form."""

    def fail(secret: Secret) -> None:
        raise ValueError("on purpose", secret)

    with pytest.raises(ValueError, match="on purpose") as caught:
        fail(Secret(PRIVATE))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret = Secret(<28 bytes>)" in shown
    assert "horse" not in shown
