"""``lyra-nli mcp``."""

from __future__ import annotations

from pathlib import Path

import click

from lyra_nli.cli.options import open_workspace, place_options
from lyra_nli.cli.options import who as user
from lyra_nli.errors import InputError


@click.command()
@place_options
@click.option("--http", is_flag=True, help="streamable HTTP at /mcp, instead of stdio")
@click.option("--host", default="127.0.0.1", show_default=True, help="with --http")
@click.option("--port", type=click.IntRange(1, 65535), default=8101, show_default=True)
@click.option("--who", metavar="NAME", help="whose feedback it is [default: the user's name]")
def mcp(
    config: Path | None, db: str | None, http: bool, host: str, port: int, who: str | None
) -> None:
    """Let an assistant give feedback (Model Context Protocol)."""
    try:
        from lyra_nli.mcp_server.run import run_http, run_stdio
        from lyra_nli.mcp_server.tools import Desk
    except ModuleNotFoundError as error:
        raise InputError(
            f"the MCP server needs the package {error.name}",
            hint="Install it with: pip install 'lyra-nli[mcp]'",
        ) from error
    workspace = open_workspace(config, db)
    desk = Desk(workspace.engine, workspace.settings, who or user())
    if http:
        run_http(desk, host, port)
    else:
        run_stdio(desk)
