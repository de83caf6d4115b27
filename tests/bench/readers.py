"""Readers of the owner's event stream, in a process of their own: `python -m tests.bench.readers PORT COUNT AFTER`."""

import asyncio
import json
import re
import sys
import zlib

import uvloop

from tests.bench.prepare import PASSWORD
from tests.support.http import request

_IDS = re.compile(rb"^id: (\d+)\nevent", re.MULTILINE)


class Reader(asyncio.Protocol):
    """One stream: counts and hashes what arrives; the first one keeps it, to look at every event."""

    def __init__(self, keep: bool) -> None:
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.size = 0
        self.crc = 0
        self.kept = bytearray()
        self._keep = keep
        self._buffer = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self.started.done():
            head, end, data = data.partition(b"\r\n\r\n")
            assert end, "the head came in pieces"
            assert head.startswith(b"HTTP/1.1 200 "), head
            self.started.set_result(None)
        at = 0
        while at < len(data):
            if not self._left:
                line = data.find(b"\r\n", at)
                if line < 0:
                    break
                self._left, at = int(data[at:line], 16) + 2, line + 2
            part = data[at : at + self._left]
            at, self._left = at + len(part), self._left - len(part)
            self._take(part[:-2] if self._left == 0 else part[: len(part) - (self._left == 1)])
        self._buffer = data[at:]

    def _take(self, part: bytes) -> None:
        self.size += len(part)
        self.crc = zlib.crc32(part, self.crc)
        if self._keep:
            self.kept += part


async def main(port: int, count: int, after: int) -> None:
    """Open the streams, say so, read until the last event (its number comes on standard input), report."""
    loop = asyncio.get_running_loop()
    readers = [Reader(number == 0) for number in range(count)]
    sent = request("GET", "/v1/owner/events", X_Master_Password=PASSWORD, Last_Event_ID=str(after))
    for reader in readers:
        transport, _ = await loop.create_connection(lambda one=reader: one, "127.0.0.1", port)
        transport.write(sent.replace(b"PORT", str(port).encode(), 1))
    await asyncio.gather(*(reader.started for reader in readers))
    print("ready", flush=True)
    last = int(await loop.run_in_executor(None, sys.stdin.readline))
    first, deadline = readers[0], loop.time() + 60
    while loop.time() < deadline:
        ids = [int(one) for one in _IDS.findall(first.kept)]
        if ids and ids[-1] == last and all(reader.size == first.size for reader in readers):
            break
        await asyncio.sleep(0.1)
    whole = ids == list(range(after + 1, last + 1))
    alike = sum((reader.size, reader.crc) == (first.size, first.crc) for reader in readers)
    print(json.dumps({"whole": whole, "alike": alike, "bytes": first.size}), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*(int(one) for one in sys.argv[1:4])))
