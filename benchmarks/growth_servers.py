"""SSH servers of a simulation: asyncssh, each on an address of its own in 127.0.0.0/8, many in a process.

A server runs no shell. It takes a script as a node does (its length is in the command line where files follow it),
waits the latency that was set, and answers each `echo @mark` of a plan's reading with the mark alone: nothing is there.
What is fed besides is dropped.

Arguments: FOLDER (host_key, user_key.pub), PORT, LATENCY in ms, FIRST and LAST number of the servers. Prints `ready`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import asyncssh

from growth_addresses import address

_MARK = b"\x1e@runbook\n"
_ASKED = re.compile(rb"^echo (@[0-9a-f]{16})$", re.MULTILINE)


def answer(script: bytes) -> bytes:
    """What a node says that has nothing yet."""
    marks = [mark + b"\n" for mark in _ASKED.findall(script)]
    return b"".join(marks)


_ASKED_SHELL = re.compile(rb"printf '\\036([0-9a-f]{16})\\n' >&2\n\Z")


async def main(folder: Path, port: int, latency_ms: float, first: int, last: int) -> None:
    """Listen until standard input ends."""

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command == "exec sh":
            await wait(process)
            return
        length = re.search(r"head -c (\d+)", process.command or "")
        script = await process.stdin.readexactly(int(length[1])) if length else await process.stdin.read()
        await asyncio.sleep(latency_ms / 1000)
        while await process.stdin.read(1 << 16):
            pass
        process.stdout.write(_MARK + answer(script))
        process.exit(0)

    async def wait(process: asyncssh.SSHServerProcess[bytes]) -> None:
        """As a shell that is asked by runbook/transport/shell.py."""
        script = b""
        while line := await process.stdin.readline():
            script += line
            if asked := _ASKED_SHELL.search(line):
                await asyncio.sleep(latency_ms / 1000)
                begin, end = b"\x1e%b 1\n" % asked[1], b"\x1e%b 0\n" % asked[1]
                process.stdout.write(begin + answer(script) + end)
                process.stderr.write(b"\x1e%b\n" % asked[1])
                script = b""
        process.exit(0)

    options = {
        "server_host_keys": [str(folder / "host_key")],
        "authorized_client_keys": str(folder / "user_key.pub"),
        "process_factory": serve,
        "encoding": None,
        "gss_host": None,
        "rdns_lookup": False,
        "login_timeout": 120,
    }
    for number in range(first, last):
        await asyncssh.listen(address(number), port, backlog=512, **options)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    asyncio.run(main(Path(where), int(numbers[0]), float(numbers[1]), int(numbers[2]), int(numbers[3])))
