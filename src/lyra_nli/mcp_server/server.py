"""The server: which tools there are, and how a call is answered."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import anyio.to_thread
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)

from lyra_nli import __version__
from lyra_nli.errors import FeedbackError, LyraNliError
from lyra_nli.mcp_server.tools import TOOLS, Desk

INSTRUCTIONS = """\
An evidence graph holds judgements of an NLI model: does a fragment of a page support, refute or
stay neutral towards a claim? The user's verdicts on them train the model. Use review_queue to
find judgements worth a look, show them to the user, and record what the user says by feedback."""

Context = ServerRequestContext[Any]


def create_server(desk: Desk) -> Server[Any]:
    """Make the MCP server, for any transport.

    A bug is logged by the SDK and answered as an error of the protocol, never a traceback.
    """

    async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[tool.description for tool in TOOLS.values()])

    async def call_tool(_: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:80]!r}")
        try:
            # A call waits for the database: in a thread, so that others go on meanwhile.
            call = partial(tool.call, desk, params.arguments or {})
            answer = await anyio.to_thread.run_sync(call)
        except LyraNliError as error:
            return _result(str(error), error_facts(error), is_error=True)
        return _result(json.dumps(answer, ensure_ascii=False), answer)

    return Server(
        "lyra-nli",
        title="lyra-nli",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def error_facts(error: LyraNliError) -> dict[str, object]:
    """An error as plain values: a code for programs, words for people."""
    facts: dict[str, object] = {
        "ok": False,
        "code": re.sub("(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower(),  # storage_error
        "parameter": "",
        "expected": "",
        "message": error.message,
        "problems": list(error.problems),
        "hint": error.hint,
        "details": [],
    }
    if isinstance(error, FeedbackError):
        facts |= {"code": error.code, "parameter": error.parameter, "expected": error.expected}
        facts["details"] = list(error.details)
    return facts


def _result(text: str, facts: dict[str, object], *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=facts, is_error=is_error
    )
