"""The process: ``lyra-nli mcp``, over stdio or streamable HTTP."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress

import anyio
import uvicorn
from mcp.server.stdio import stdio_server
from starlette.applications import Starlette

from lyra_nli.errors import InputError
from lyra_nli.mcp_server.server import create_server
from lyra_nli.mcp_server.tools import Desk

logger = logging.getLogger("uvicorn.error")  # which, whatever its name says, takes all levels

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses at which the SDK refuses requests that a web page makes in a browser."""


def run_stdio(desk: Desk) -> None:
    """Serve the client that started this process, until it closes our input.

    Standard output carries nothing but the protocol.
    """
    server = create_server(desk)

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


def create_http_app(desk: Desk, host: str = "127.0.0.1") -> Starlette:
    """Make the ASGI application with the one path ``/mcp``.

    Every request stands for itself, so the server keeps no sessions.
    """
    return create_server(desk).streamable_http_app(
        host=host, stateless_http=True, json_response=True
    )


def run_http(desk: Desk, host: str, port: int) -> None:
    """Serve over streamable HTTP until told to stop.

    Raises:
        InputError: the port can't be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        # Connections inherit it. Without, an answer in two parts waits 40 ms for the client.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise InputError(
            f"can't listen on {host} port {port}: {error.strerror or error}",
            hint="Choose another with --host and --port.",
        ) from error
    config = uvicorn.Config(create_http_app(desk, host), access_log=False)  # sets up the log
    logger.info("MCP at http://%s:%d/mcp", f"[{host}]" if ":" in host else host, port)
    if host not in LOOPBACK:
        logger.warning("whoever reaches %s can change the database: there is no login", host)
    with listener, suppress(KeyboardInterrupt):  # uvicorn has ended in order by then
        uvicorn.Server(config).run(sockets=[listener])
