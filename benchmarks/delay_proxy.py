"""A port, a server's port, seconds, bytes a second -> what passes between them, later and no faster.

`python -m benchmarks.delay_proxy PORT SERVER_PORT SECONDS [BYTES_PER_S]` runs until it is ended. Requests come so many
seconds later to the server, one after the other on each connection; all answers share the bytes a second.
"""

import asyncio
import sys

_CHUNK = 2**18


class Line:
    """What all connections share: so many bytes a second, without a limit where that is 0."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def carry(self, num_bytes: int) -> None:
        """Wait until these bytes have passed behind those of others."""
        if not self._bytes_per_s:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + num_bytes / self._bytes_per_s
        await asyncio.sleep(self._free_at - now)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float, line: Line | None) -> None:
    try:
        while data := await source.read(_CHUNK):
            if delay_s:
                await asyncio.sleep(delay_s)
            if line is not None:
                await line.carry(len(data))
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()


async def serve(port: int, server_port: int, delay_s: float, bytes_per_s: float = 0.0) -> None:
    """Pass connections on for ever."""
    line = Line(bytes_per_s)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", server_port, limit=_CHUNK)
        await asyncio.gather(_copy(reader, back, delay_s, None), _copy(to, writer, 0.0, line))

    async with await asyncio.start_server(connected, "127.0.0.1", port, limit=_CHUNK) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])))
