"""Try connections to etcd's ports, one after the other; run by a Python in a node's network (`python tls_attempts.py`).

Standard input: a JSON list of attempts `[host, port, version, certificate, key]`; a version of "" is plain HTTP, a
certificate of "" is none. Standard output: a JSON list with what came back of each: the first line of the HTTP answer,
or why there was none.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import warnings

_REQUEST = b"GET /version HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n"
_TIMEOUT_S = 5


def attempt(host: str, port: int, version: str, certificate: str, key: str) -> str:
    """The first line of the answer to a request, or why there was none."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as plain:
            if not version:
                return _asked(plain)
            with context(version, certificate, key).wrap_socket(plain) as wrapped:
                return _asked(wrapped)
    except OSError as error:  # ssl.SSLError is one
        return f"{type(error).__name__}: {error}"


def context(version: str, certificate: str, key: str) -> ssl.SSLContext:
    """A client of one TLS version, with weak ciphers where an old version needs them, that trusts any server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1, which are to be refused
        made.minimum_version = made.maximum_version = ssl.TLSVersion[version]
    made.set_ciphers("ALL:@SECLEVEL=0")
    if certificate:
        made.load_cert_chain(certificate, key)
    return made


def _asked(connection: socket.socket) -> str:
    connection.sendall(_REQUEST)
    return connection.recv(4096).split(b"\r\n")[0].decode("latin1") or "closed without an answer"


if __name__ == "__main__":
    json.dump([attempt(*one) for one in json.load(sys.stdin)], sys.stdout)
