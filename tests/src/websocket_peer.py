"""Both ends of WebSockets, by the package `websockets`: a backend, and clients that go to it through an edge.

Prints the backend's port. Then it takes lines `URL DEFLATE SUBPROTOCOL`, goes through everything a client may do on
connections to URL on this machine, and prints what both ends saw as one line of JSON.
"""

import asyncio
import http
import json
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

LARGE_BYTES = 3 * 1024 * 1024
seen_by_backend = asyncio.Queue()


async def backend(connection):
    """Sends everything back; closes with a code of its own when told to."""
    try:
        async for message in connection:
            if message == "close with 4001":
                await connection.close(4001, "au revoir \N{SNOWMAN}")
                break
            await connection.send(message)
    except ConnectionClosed:
        pass
    await seen_by_backend.put([connection.close_code, connection.close_reason])


def answer_health_checks(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "well\n")


class Way:
    """To the edge, whose certificate nobody vouches for."""

    def __init__(self, url, deflate, subprotocol):
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        self.url = url
        self.options = {
            "ssl": trust,
            # Whatever the name is.
            "host": "127.0.0.1",
            "compression": "deflate" if deflate == "yes" else None,
            "subprotocols": None if subprotocol == "-" else ["other", subprotocol],
            "max_size": 2 * LARGE_BYTES,
            "open_timeout": 20,
        }

    def open(self):
        return connect(self.url, **self.options)


async def come_back(connection, message):
    await connection.send(message)
    echoed = await connection.recv()
    whole = message if isinstance(message, (str, bytes)) else type(message[0])().join(message)
    return type(echoed) is type(whole) and echoed == whole


async def messages(way):
    seen = {}
    async with way.open() as connection:
        seen["subprotocol"] = connection.subprotocol
        seen["compressed"] = bool(connection.protocol.extensions)
        seen["text"] = await come_back(connection, "h\u00e9llo \N{SNOWMAN}")
        seen["binary"] = await come_back(connection, bytes(range(256)))
        seen["empty"] = await come_back(connection, "") and await come_back(connection, b"")
        # Bytes that do not shrink, and bytes that do.
        seen["large"] = await come_back(connection, os.urandom(LARGE_BYTES))
        seen["even"] = await come_back(connection, b"\0" * LARGE_BYTES)
        seen["in_pieces"] = await come_back(connection, ["one, ", "two, ", "three"])
        pong = await connection.ping(b"are you there?")
        seen["pinged"] = await asyncio.wait_for(pong, 10) >= 0
        together = [f"message {number}" for number in range(200)]
        for message in together:
            await connection.send(message)
        seen["many"] = [await connection.recv() for _ in together] == together
    seen["closed"] = await seen_by_backend.get()
    return seen


async def closings(way):
    seen = {}
    connection = await way.open()
    await connection.close(3001, "I have seen enough")
    seen["by_client"] = await seen_by_backend.get()
    connection = await way.open()
    await connection.send("close with 4001")
    try:
        await connection.recv()
    except ConnectionClosed as closed:
        seen["by_backend"] = [closed.rcvd.code, closed.rcvd.reason]
    await seen_by_backend.get()
    connection = await way.open()
    await come_back(connection, "before it is cut off")
    connection.transport.abort()
    seen["cut_off"] = (await asyncio.wait_for(seen_by_backend.get(), 20))[0]
    return seen


async def main():
    async with serve(
        backend,
        "127.0.0.1",
        0,
        process_request=answer_health_checks,
        subprotocols=["chat"],
        select_subprotocol=lambda _, offered: "chat" if "chat" in offered else None,
        max_size=2 * LARGE_BYTES,
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            way = Way(*line.split())
            print(json.dumps({**await messages(way), **await closings(way)}), flush=True)


asyncio.run(main())
