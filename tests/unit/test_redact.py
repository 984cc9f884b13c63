"""runbook.records.redact: what is written holds no private key and no password of this run; all else stays as it is."""

from __future__ import annotations

import base64
import copy
import html
import json
import re
import time
from typing import Any
from urllib.parse import quote, quote_plus

import nbformat
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from runbook.records.redact import MARK, Redactor, known_secrets
from runbook.records.secret_forms import forms

ENCODING, NONE = serialization.Encoding.PEM, serialization.NoEncryption()
FORMATS = serialization.PrivateFormat
EC_KEY, RSA_KEY = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
LOCKED = serialization.BestAvailableEncryption(b"passphrase")
PEMS = {
    "pkcs8": EC_KEY.private_bytes(ENCODING, FORMATS.PKCS8, NONE).decode(),
    "ec": EC_KEY.private_bytes(ENCODING, FORMATS.TraditionalOpenSSL, NONE).decode(),
    "rsa": RSA_KEY.private_bytes(ENCODING, FORMATS.TraditionalOpenSSL, NONE).decode(),
    "rsa locked": RSA_KEY.private_bytes(ENCODING, FORMATS.TraditionalOpenSSL, LOCKED).decode(),
    "encrypted": EC_KEY.private_bytes(ENCODING, FORMATS.PKCS8, LOCKED).decode(),
    "openssh": ed25519.Ed25519PrivateKey.generate().private_bytes(ENCODING, FORMATS.OpenSSH, NONE).decode(),
}
CERTIFICATE = PEMS["pkcs8"].replace("PRIVATE KEY", "CERTIFICATE")
"""To the redactor a certificate is what its first line says."""

WAYS = {
    "plain": lambda text: text,
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "repr": repr,
    "json": json.dumps,
    "json twice": lambda text: json.dumps(json.dumps(text)),
    "html": lambda text: "<pre>" + html.escape(text) + "</pre>",
    "html lines": lambda text: text.replace("\n", "<br>\n"),
    "url": quote,
    "url form": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 lines in json": lambda text: json.dumps(base64.encodebytes(text.encode()).decode()),
    "base64 +1": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "base64 +2": lambda text: base64.b64encode(b"xy" + text.encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "diff": lambda text: "".join(f"+{line}\n" for line in text.splitlines()),
    "log": lambda text: "".join(f"Nov 23 02:13:14 node1 cat[12]: {line}\n" for line in text.splitlines()),
    "spaces": lambda text: text.replace("\n", " "),
    "indented": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "colours": lambda text: text.replace("PRIVATE", "\x1b[32mPRIVATE\x1b[0m").replace("\n", "\x1b[0m\n"),
}


def pieces(pem: str) -> list[str]:
    """What must not survive of a key: each 16 characters of its base64 that stand beside each other in a line."""
    body = [line for line in pem.splitlines() if line and "-----" not in line and ": " not in line]
    return [line[at : at + 16] for line in body for at in range(max(1, len(line) - 15))]


def decoded(text: str) -> list[str]:
    """What the runs of base64 in a text decode to, begun at each of their first four characters."""
    whole = re.sub(r"(\\\\*\\[rn]|\s)+", "", text).translate(str.maketrans("-_", "+/"))
    runs = [run[shift:] for run in re.findall("[A-Za-z0-9+/]{8,}", whole) for shift in range(4)]
    return [base64.b64decode(run[: len(run) // 4 * 4]).decode("latin-1") for run in runs]


def leaks(text: str, pem: str) -> list[str]:
    """Pieces of a key that can be read in a text, plain or in base64 at any place."""
    read = [text, *decoded(text)]
    return [piece for piece in pieces(pem) if len(piece) == 16 and any(piece in one for one in read)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", PEMS)
def test_a_private_key_goes_however_it_is_written(kind: str, way: str) -> None:
    """Every kind of key in every way of writing is one mark; what stands before and after it stays."""
    redactor = Redactor()
    text = redactor.text(f"the cause:\n{WAYS[way](PEMS[kind])}\nwhat came after: all is well")
    assert leaks(text, PEMS[kind]) == []
    assert redactor.count == 1
    assert text.startswith("the cause:\n")
    assert text.endswith(": all is well")
    assert text.count(MARK) == 1


@pytest.mark.parametrize("way", ["plain", "crlf", "repr", "json", "diff", "log", "url", "base64", "base64 lines"])
@given(data=st.data())
def test_a_key_that_is_cut_goes_too(way: str, data: st.DataObject) -> None:
    """Of a key whose end is missing nothing is left, wherever it was cut."""
    pem = data.draw(st.sampled_from(sorted(PEMS.values())))
    written = WAYS[way](pem)
    cut = written[: data.draw(st.integers(0, len(written)))]
    assert leaks(Redactor().text(f"x:\n{cut}"), pem) == []


@pytest.mark.parametrize("way", ["plain", "crlf", "repr", "json", "diff", "log"])
@given(data=st.data())
def test_a_key_without_its_beginning_goes_too(way: str, data: st.DataObject) -> None:
    """Messages keep the end of what a node printed: a last line tells that a key came before it."""
    pem = data.draw(st.sampled_from(sorted(PEMS.values())))
    written = WAYS[way](pem)
    assert leaks(Redactor().text("x: " + written[data.draw(st.integers(0, len(written) - 40)) :]), pem) == []


@given(st.text(max_size=60), st.sampled_from(sorted(PEMS)), st.sampled_from(sorted(WAYS)), st.text(max_size=60))
def test_a_key_goes_whatever_is_around_it(before: str, kind: str, way: str, after: str) -> None:
    """No text before or after a key hides it."""
    assert leaks(Redactor().text(f"{before}\n{WAYS[way](PEMS[kind])}\n{after}"), PEMS[kind]) == []


def test_a_bundle_keeps_its_certificate() -> None:
    """Of a certificate and its key in one text the key alone goes, also where the key was cut."""
    for key in (PEMS["ec"], PEMS["ec"][:120] + "\n"):
        text = Redactor().text(CERTIFICATE + key + CERTIFICATE)
        assert text.count(CERTIFICATE) == 2
        assert leaks(text, key) == []


@pytest.mark.parametrize("way", WAYS)
def test_certificates_and_public_keys_stay(way: str) -> None:
    """What is public is evidence: no byte of it changes."""
    public = EC_KEY.public_key().public_bytes(ENCODING, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    text = WAYS[way](f"{CERTIFICATE}{public}\nsha256 {'0123456789abcdef' * 4} /opt/k8s/bin/etcd\n")
    redactor = Redactor(["correct horse"])
    assert redactor.text(text) is text or redactor.text(text) == text
    assert redactor.count == 0


@pytest.mark.parametrize(
    "text",
    [
        "expected -----BEGIN PRIVATE KEY-----, found nothing",
        "a key is between -----BEGIN RSA PRIVATE KEY----- and -----END RSA PRIVATE KEY-----.",
        "-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        "PRIVATE KEY",
        "key: SHA256:Q1r0w0P1nFm8vYV1mJq8w7n2Qm3p4o5i6u7y8t9r0e1 (private)",
        "LS0tLS1CRUdJTg==",
        "Nov 23 cat[12]: -----BEGIN PRIVATE KEY-----\nNov 23 cat[12]: done\nNov 23 cat[12]: all is well",
        "node1: BEGIN PRIVATE KEY-----\nlisten-peer-urls: https://198.18.0.11:2380\n",
        f"{MARK} {MARK}",
    ],
)
def test_a_mention_of_a_key_is_none(text: str) -> None:
    """Messages about keys stay readable."""
    redactor = Redactor()
    assert redactor.text(text) == text
    assert redactor.count == 0


# ---- known secrets

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=6, max_size=24).filter(
    lambda text: len(text.strip()) >= 6 and not any(text.strip().lower() in one for one in (MARK, "x" * 99))
)


def escaped(secret: str) -> list[str]:
    """A secret as programs write it."""
    data = secret.encode()
    return [
        secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret), html.escape(json.dumps(secret)[1:-1]),
        json.dumps(json.dumps(secret)[1:-1])[1:-1], repr(secret)[1:-1], repr(data)[2:-1],
    ]  # fmt: skip


@given(SECRETS, st.text(max_size=30), st.text(max_size=30), st.integers(0, 10))
def test_a_known_secret_goes_however_it_is_written(secret: str, before: str, after: str, way: int) -> None:
    """Plain, for URLs, JSON, Python and HTML, one in the other: it never survives, whatever is around it."""
    redactor = Redactor([secret])
    if redactor.notes:
        return
    text = redactor.text(before + escaped(secret.strip())[way] + after)
    assert redactor.count >= 1
    assert escaped(secret.strip())[way] not in text.replace(MARK, "")
    assert secret.strip() not in text.replace(MARK, "\0")


@given(SECRETS, st.binary(max_size=90), st.binary(max_size=90), st.sampled_from([0, 20, 64, 76]), st.booleans())
def test_a_known_secret_goes_in_base64(secret: str, before: bytes, after: bytes, width: int, urlsafe: bool) -> None:  # noqa: FBT001
    """Inside of any base64, at each of its three places, also broken into lines: what is left decodes without it."""
    redactor = Redactor([secret])
    if redactor.notes:
        return
    data = secret.strip().encode()
    written = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(before + data + after).decode()
    lines = [written[at : at + width] for at in range(0, len(written), width)] if width else [written]
    left = redactor.text("\n".join(lines)).replace("\n", "")
    assert redactor.count >= 1
    assert not any(data in one.encode("latin-1") for run in left.split(MARK) for one in decoded(run))


@given(st.text(max_size=300))
def test_a_text_without_secrets_is_itself(text: str) -> None:
    """No character changes, none is counted."""
    redactor = Redactor(["correct horse battery staple", "hunter2-hunter2"])
    assert redactor.text(text) is text
    assert redactor.count == 0


@given(st.text(max_size=200))
def test_a_second_time_changes_nothing(text: str) -> None:
    """What was redacted once is as it should be, even where a secret is a part of the mark's own words."""
    redactor = Redactor(["moved", "removed]", "cret rem"])
    once = redactor.text(f"{text} moved removed] {PEMS['ec']}")
    count = redactor.count
    assert redactor.text(once) == once
    assert redactor.count == count


def test_each_removal_is_counted() -> None:
    """The count is of all that this redactor removed, over all its texts."""
    redactor = Redactor(["correct horse", "battery staple"])
    redactor.text("correct horse, correct horse")
    redactor.text(f"battery staple {PEMS['ec']}")
    assert redactor.count == 4
    assert "horse" not in repr(redactor)


@pytest.mark.parametrize("value", ["", "abc", "root", "Etcd", "password", "etc", "node1", "ubuntu"])
def test_a_value_that_would_blank_the_record_is_not_looked_for(value: str) -> None:
    """Too short, a word of every record or of this one, or part of one: it is left, and a note says so without it."""
    redactor = Redactor([value], words=["ubuntu"])
    text = f"root:root 0644 /etc/etcd/cert node1 {value} abc"
    assert redactor.text(text) == text
    assert len(redactor.notes) == 1
    assert "not looked for" in redactor.notes[0]


def test_colours_inside_of_a_secret_do_not_hide_it() -> None:
    """A traceback colours source by its words: a secret of two is found; where there is none all colours stay."""
    coloured = "\x1b[31mpassword\x1b[0m = 'correct\x1b[0m \x1b[32mhorse'"
    redactor = Redactor(["correct horse"])
    assert redactor.text(coloured) == f"password = '{MARK}'"
    assert redactor.count == 1
    assert Redactor(["other words"]).text(coloured) == coloured


def test_the_forms_of_a_plain_value_are_few() -> None:
    """What no program writes otherwise is looked for once."""
    assert forms("correctHorse22") == {"correctHorse22"}


# ---- notebooks


def notebook(**parts: Any) -> dict[str, Any]:  # noqa: ANN401
    """A notebook of one executed cell, as papermill leaves one."""
    outputs = parts.get("outputs", [])
    cell = nbformat.v4.new_code_cell(parts.get("source", "1"), execution_count=1, outputs=outputs)
    cell.metadata.update(parts.get("cell_metadata", {}))
    made = nbformat.v4.new_notebook(cells=[cell], metadata=parts.get("metadata", {}))
    nbformat.validate(made)
    return made  # type: ignore[no-any-return]


def outputs_of(text: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Every kind of output with a text in it."""
    new = nbformat.v4.new_output
    return [
        new("stream", name="stderr", text=text),
        new("display_data", data={"text/html": f"<b>{text}</b>", "text/plain": text}, metadata={"a": {"b": [text]}}),
        new(
            "execute_result", data={"application/x+json": [{"rows": [[1, None, text]], text: True}]}, execution_count=1
        ),
        new("error", ename="ValueError", evalue=text, traceback=["\x1b[31mx\x1b[0m", f"y: {text}"]),
    ]


@pytest.mark.parametrize("secret", ["correct horse", PEMS["pkcs8"], PEMS["openssh"]], ids=["value", "pkcs8", "openssh"])
def test_every_place_of_a_notebook_is_looked_at(secret: str) -> None:
    """Source, streams, data of every kind, nested values and keys, tracebacks, metadata: none keeps it."""
    node = notebook(
        source=f"x = {secret!r}",
        outputs=outputs_of(secret),
        cell_metadata={"papermill": {"status": secret}},
        metadata={"papermill": {"parameters": {"x": [secret]}}},
    )
    before = copy.deepcopy(node)
    redactor = Redactor(["correct horse"])
    clean = redactor.notebook(node)
    nbformat.validate(clean)
    text = json.dumps(clean)
    assert "horse" not in text
    assert leaks(text, PEMS["pkcs8"]) + leaks(text, PEMS["openssh"]) == []
    assert redactor.count == 11
    assert node == before
    assert type(clean) is type(node)
    assert clean["cells"][0]["outputs"][3]["ename"] == "ValueError"
    assert clean["cells"][0]["outputs"][2]["data"]["application/x+json"][0]["rows"][0][:2] == [1, None]


def as_lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@pytest.mark.parametrize("way", ["plain", "crlf", "base64 lines", "diff", "log", "indented"])
@pytest.mark.parametrize("keepends", [True, False])
def test_a_key_in_a_list_of_lines_is_found(way: str, *, keepends: bool) -> None:
    """Notebooks on disk keep texts as lists of lines; each line that held a piece is a mark, the others stay."""
    lines = ["first\n", *WAYS[way](PEMS["rsa"]).splitlines(keepends=keepends), "\n", "last."]
    node = notebook()
    node["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    clean = Redactor().notebook(node)["cells"][0]["outputs"][0]["text"]
    assert leaks("".join(clean), PEMS["rsa"]) == []
    assert (clean[0], clean[-1], len(clean)) == ("first\n", "last.", len(lines))


def test_a_key_over_several_outputs_and_rows_is_found() -> None:
    """A flush in the middle of a key, or a row a line, parts it; the pieces go all the same."""
    half, rest = PEMS["pkcs8"][:90], PEMS["pkcs8"][90:]
    new = nbformat.v4.new_output
    parted = [new("stream", name="stdout", text=half), new("stream", name="stdout", text=rest)]
    rows = [["node1", line] for line in PEMS["pkcs8"].splitlines()]
    clean = Redactor().notebook(
        notebook(outputs=[*parted, new("display_data", data={"application/x+json": {"data": rows}})])
    )
    assert leaks(json.dumps(clean), PEMS["pkcs8"]) == []
    assert len(clean["cells"][0]["outputs"][2]["data"]["application/x+json"]["data"]) == len(rows)


def test_a_secret_of_several_lines_is_found_in_a_list() -> None:
    """A known value with a line end in it goes whole, as one string and as lines."""
    redactor = Redactor(["correct\nhorse"])
    assert redactor.value(["a correct\n", "horse b"]) == [f"a {MARK}", f"{MARK} b"]
    assert redactor.text("a correct\nhorse b") == f"a {MARK} b"
    assert redactor.text(json.dumps("a correct\nhorse b")) == f'"a {MARK} b"'


LEAVES = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner), max_leaves=20
)


@given(VALUES)
def test_a_value_without_secrets_is_the_same_object(value: Any) -> None:  # noqa: ANN401
    """Any JSON value comes back itself; nothing is counted."""
    redactor = Redactor(["correct horse"])
    assert redactor.value(value) is value
    assert redactor.count == 0


@given(st.lists(st.text(max_size=12), max_size=8), st.integers(0, 8))
def test_the_strings_around_a_secret_stay(texts: list[str], at: int) -> None:
    """One string changes, whatever characters the others have."""
    planted = [*texts[:at], "correct horse", *texts[at:]]
    assert Redactor(["correct horse"]).value(planted) == [*texts[:at], MARK, *texts[at:]]


def test_what_can_not_be_looked_at_is_an_error() -> None:
    """Bytes and other objects are no JSON: they raise rather than pass unseen."""
    for value in (b"x", ("a",), object()):
        with pytest.raises(TypeError, match="no JSON value"):
            Redactor().value({"a": [value]})


def test_a_notebook_without_secrets_is_the_same_object() -> None:
    """It is not copied, and nothing of it changes."""
    node = notebook(source="x = 1", outputs=outputs_of("all is well"))
    before = copy.deepcopy(node)
    assert Redactor(["correct horse"]).notebook(node) is node
    assert node == before


def test_a_large_notebook_takes_no_time() -> None:
    """A megabyte of tables with a dozen forms of passwords takes a fraction of a second."""
    row = '<tr><td style="padding:2px 8px">node1</td><td>/opt/k8s/bin/etcd</td><td>\u2713 ok</td></tr>\n'
    node = notebook(outputs=[nbformat.v4.new_output("display_data", data={"text/html": row * 120}) for _ in range(100)])
    assert len(json.dumps(node)) > 1_000_000
    redactor = Redactor(['p"a/ss<&>w\u00f6rd', "correct horse"])
    start = time.process_time()
    assert redactor.notebook(node) is node
    assert time.process_time() - start < 0.5


# ---- the environment


def test_declared_passwords_are_known() -> None:
    """SSH's, by either variable, and sudo's; a word too, and "-", which asks, is none."""
    environ = {
        "RUNBOOK_SSH_PASSWORD_VARIABLE": "CORP_PW",
        "CORP_PW": "tr0ub4dor",
        "RUNBOOK_SUDO_PASSWORD": "simple",
        "RUNBOOK_SSH_PASSWORD": "-",
        "HOME": "/root",
    }
    assert known_secrets(environ) == ("simple", "tr0ub4dor")


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("GITHUB_TOKEN", "ghp_A1b2C3d4", True),
        ("aws_secret_access_key", "wJalrXUtnFEMI/K7MDENG", True),
        ("VAULT_API_KEY", "0123-4567", True),
        ("APP_SECRET", "correcthorsebattery", True),
        ("DB_PASSWORD", "postgres", False),
        ("DB_PASSWORD", "changeme", False),
        ("RETRY_TOKEN", "12345678", False),
        ("MY_SECRET", "/dev/null", False),
        ("MY_SECRET", "", False),
        ("RUNBOOK_LOCK_TOKEN", "0123456789abcdef" * 2, False),
        ("TOKENIZERS_PARALLELISM", "false-false-1", False),
        ("MY_SECRET_FILE", "Correct-Horse-9", False),
    ],
)
def test_others_are_known_by_name_and_value(name: str, value: str, *, known: bool) -> None:
    """A name that ends as secrets' names do, and a value that is no word, number or path; the lock's token is none."""
    assert known_secrets({name: value}) == ((value,) if known else ())
