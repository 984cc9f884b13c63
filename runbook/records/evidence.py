"""Closing a record: sums over every file, a link to the record that was closed before it, an SSH signature.

Everything is in the formats of others, so that `sha256sum -c` and `ssh-keygen -Y verify` check a record without this
program. The records of a cluster form a chain in the order in which they were closed: each holds a copy of the
SHA256SUMS of the one before (previous.SHA256SUMS), under its own sums. What no chain can show is that its newest
records were removed: for that, keep the newest one's sum elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runbook.certs import private_files
from runbook.errors import RunbookError
from runbook.plain_text import printable
from runbook.records import chain, saving, sumfile
from runbook.records.chain import LINK
from runbook.records.sumfile import SIGNATURE, SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator

README: Final = "README.md"
#: What a signature is for, so that one made for something else never passes (ssh-keygen -n).
NAMESPACE: Final = "runbook-record"
_KEYGEN_S = 60.0
_README = """# Record {name}

What one run on the cluster `{cluster}` left: the executed notebooks, each as an HTML page too (begin with
`index.html`), `summary.json` for programs, `params.yaml` as used, and `journal.jsonl` with every step.
Changing, adding or removing a file shows; to check, nothing of this tool is needed.

## Nothing was changed

In this folder:

    sha256sum -c SHA256SUMS

Each line must say `OK`. All files but `SHA256SUMS` and its signature are listed; one that is not was added later.
These two numbers are the same:

    wc -l < SHA256SUMS
    find . ! -type d ! -path ./SHA256SUMS ! -path ./SHA256SUMS.sig | wc -l

## Who signed it

    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I WHO -n {namespace} -s SHA256SUMS.sig < SHA256SUMS

`ALLOWED_SIGNERS` has a line `WHO ssh-ed25519 AAAA...` for each signer. Get it from those who answer for the cluster,
not from where this record came from. Without a `SHA256SUMS.sig` the record is not signed: then anyone who could
write here could have made it anew, sums and all.

## No record was left out before it

{chain}
The newest record has none after it that would miss it: note its `sha256sum SHA256SUMS` elsewhere.
`runbook verify` does all of this, and reads in the notebooks that each phase really ran.
"""
_FIRST = "This is the cluster's first record: it has no `previous.SHA256SUMS`.\n"
_FOLLOWS = """Previous record: `{name}`. `previous.SHA256SUMS` is a copy of its `SHA256SUMS`: these two sums agree:

    sha256sum previous.SHA256SUMS ../{name}/SHA256SUMS
"""


def close(folder: Path, *, sign_key: Path | None = None) -> None:
    """Close a record: README.md, previous.SHA256SUMS, SHA256SUMS and, with a key, SHA256SUMS.sig.

    Its files become read-only, against an editor's accident; its folders stay as they are, so it can be removed.
    The cluster's folder is locked (flock) meanwhile: of records that close at once each follows another.

    Args:
        folder: The record's folder, `ROOT/<cluster>/<UTC time>`.
        sign_key: A private key, or the .pub file of one that an agent holds. ssh-keygen never asks for a passphrase.

    Raises:
        RunbookError: It is closed already, holds something that sums can't cover, or can't be written: it stays open;
            or it can't be signed: it is closed then, without a signature.
    """
    folder = Path(os.path.realpath(folder))
    try:
        with _locked(folder.parent):
            _close(folder)
    except OSError as error:
        raise RunbookError(
            f"can't be closed: {error.strerror or error}",
            subject=str(error.filename or folder),
            remedy=f"see to the free space and to who may write there; then: runbook close {shlex.quote(str(folder))}",
        ) from error
    if sign_key is not None:
        _sign(folder, sign_key.expanduser())


@contextlib.contextmanager
def _locked(cluster: Path) -> Iterator[None]:
    descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _close(folder: Path) -> None:
    if chain.NAME.fullmatch(folder.name) is None:
        what = "is no record: a record's folder is called by the UTC time of its run, as in 20261123T021314Z"
        raise RunbookError(what, subject=str(folder), remedy="give it its name back, or name another folder")
    there = sumfile.inside(folder)
    for name, said in ((SUMS, "is closed already"), (SIGNATURE, "was closed before: its SHA256SUMS is gone")):
        if name in there:
            remedy = "a closed record is never changed: leave it as it is, and look with: runbook verify"
            raise RunbookError(said, subject=str(folder), remedy=remedy)
    refused = sorted(name for name, regular in there.items() if not (regular and sumfile.is_plain(name)))
    if refused:
        raise RunbookError(
            f"holds what sums can't cover, a link, a special file or an odd name: {', '.join(map(ascii, refused[:5]))}",
            subject=str(folder),
            remedy="remove or rename it",
        )
    before = chain.tip(chain.closed(folder.parent))
    if before is None:
        (folder / LINK).unlink(missing_ok=True)
        told = _FIRST
    else:
        saving.write(folder / LINK, before.sums)
        told = _FOLLOWS.format(name=before.name)
    text = _README.format(name=folder.name, cluster=folder.parent.name, namespace=NAMESPACE, chain=told)
    saving.write(folder / README, text)
    names = sorted(sumfile.inside(folder))
    sums = "".join(f"{sumfile.sha256(folder / name, settle=True)}  {name}\n" for name in names)
    for name in names:
        _make_read_only(folder / name)
    saving.write(folder / SUMS, sums)
    _make_read_only(folder / SUMS)
    _settle(folder)


def _make_read_only(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # another user's file: the sums hold all the same
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def _settle(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sign(folder: Path, key: Path) -> None:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            # A copy, for ssh-keygen names its output itself; and no data on stdin: it would be read as a passphrase.
            copy = Path(scratch) / SUMS
            copy.write_bytes(sumfile.content(folder / SUMS, sumfile.MOST_SUMS))
            status, _, said = keygen("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(copy))
            if status == 0:
                saving.write(folder / SIGNATURE, copy.with_name(SIGNATURE).read_text(encoding="ascii"))
                _make_read_only(folder / SIGNATURE)
                _settle(folder)
                return
    except OSError as error:
        said = error.strerror or str(error)
    load = f"ssh-add {shlex.quote(str(key.with_suffix('') if key.suffix == '.pub' else key))}"
    what = f"load the key into an agent ({load}) or name one without a passphrase" if key.is_file() else "name a key"
    if why := private_files.fault(key):
        said, what = f"it is {why}", private_files.remedy(key)
    raise RunbookError(
        f"is closed and its sums stand, but it is not signed with {key}: {printable(said, 300)}",
        subject=str(folder),
        remedy=f"{what}; then sign it as it is: cd {shlex.quote(str(folder))} && "
        f"ssh-keygen -Y sign -f {shlex.quote(str(key))} -n {NAMESPACE} {SUMS}",
    )


def keygen(*args: str, data: bytes = b"") -> tuple[int, str, str]:
    """Run ssh-keygen without a terminal, so that it never asks: exit status, stdout, stderr.

    Args:
        args: Its arguments.
        data: Its stdin.
    """
    environment = os.environ | {"SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            ["ssh-keygen", *args], stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
    except OSError as error:
        return 127, "", f"ssh-keygen can't be run ({error.strerror}): it comes with OpenSSH's client"
    with process:
        try:
            out, err = process.communicate(data, _KEYGEN_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # what it has started holds our pipes too
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return 124, "", f"ssh-keygen did not end within {_KEYGEN_S:.0f} s: the agent waits for someone"
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
