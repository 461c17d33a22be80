"""The edge of HTTP: a route class that bounds bodies and answers every expected error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from lyra_nli.errors import BusyError, FeedbackError, InputError, LyraNliError
from lyra_nli.ml_server.schemas import ErrorResponse, NLIPair

MAX_BODY_BYTES: Final = 64 * 2**20
RETRY_AFTER_SECONDS: Final = 2
MAX_PROBLEMS: Final = 100

GAVE_UP: Final = 499
"""Nobody reads it: the client has closed the connection (nginx's number for that)."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_LOOPBACK: Final = ("127.0.0.1", "::1")
_OWN_NAME: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
_POSITION = re.compile(r"^pair (\d+): ")


class LyraRoute(APIRoute):
    """A route that carries its own error handling, so that it works in any application.

    Refuses bodies over ``MAX_BODY_BYTES`` while they arrive. Expected errors become the JSON
    of ``ErrorResponse``; unexpected ones pass, to be handled where the application does that.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await self.answered(handler, request)
            except ClientDisconnect:
                return Response(status_code=GAVE_UP)
            except FeedbackError as error:
                return _feedback_error(error)
            except BusyError as error:
                response = error_response(error.http_status, error.message, hint=error.hint)
                response.headers["Retry-After"] = str(error.retry_after)
                return response
            except LyraNliError as error:
                return error_response(error.http_status, error.message, error.problems, error.hint)
            except RequestValidationError as error:
                return error_response(422, "the request is not valid", list(_problems(error)))
            except HTTPException as error:
                response = error_response(error.status_code, str(error.detail))
                response.headers.update(error.headers or {})
                return response

        return handle

    @staticmethod
    async def answered(handler: Handler, request: Request) -> Response:
        """Read the body, and answer."""
        return await handler(await _bounded(request))


class PatientRoute(LyraRoute):
    """A route whose work ends when whoever asked for it has gone."""

    @staticmethod
    async def answered(handler: Handler, request: Request) -> Response:
        """Answer, unless nobody waits for that any more."""
        work = asyncio.create_task(handler(await _bounded(request)))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            return await work if work.done() else Response(status_code=GAVE_UP)
        finally:
            for task in (work, gone):
                task.cancel()


class OwnPagesRoute(LyraRoute):
    """A route that a browser may only use from a page of this server; programs always may."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Refuse what pages of other sites ask for."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if _called_by_foreign_name(request):
                return error_response(403, "on this machine, this is only done at localhost")
            if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return error_response(403, "pages of other sites may not ask for this")
            return await handler(request)

        return handle


def _called_by_foreign_name(request: Request) -> bool:
    """Whether a page may have had its own name point at this machine (DNS rebinding).

    To the browser that page is then one of ours. The address is that of the connection; a
    server that others reach at another one may have any name.
    """
    address, _ = request.scope.get("server") or ("", None)
    return address in _LOOPBACK and not _OWN_NAME.fullmatch(request.headers.get("host", ""))


def error_response(
    status: int, message: str, problems: Sequence[str] = (), hint: str = ""
) -> JSONResponse:
    """Make the one shape that every error has."""
    return _response(status, message, problems, hint, {})


def _feedback_error(error: FeedbackError) -> JSONResponse:
    """The same shape, and what a program wants to know."""
    about = {"code": error.code, "parameter": error.parameter, "expected": error.expected}
    more = {**about, "details": error.details}
    return _response(error.http_status, error.message, error.problems, error.hint, more)


def _response(
    status: int, message: str, problems: Sequence[str], hint: str, more: Mapping[str, Any]
) -> JSONResponse:
    shown = [_printable(problem) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"... and {len(problems) - MAX_PROBLEMS} more")
    text = _printable(message)
    body = ErrorResponse(error=text, message=text, problems=shown, hint=_printable(hint))
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return JSONResponse({**body.model_dump(), **_printable_all(more)}, status, headers)


def _printable_all(value: Any) -> Any:
    match value:
        case str():
            return _printable(value)
        case Mapping():
            return {key: _printable_all(each) for key, each in value.items()}
        case list() | tuple():
            return [_printable_all(each) for each in value]
    return value


def by_pair_id(error: InputError, pairs: Sequence[NLIPair]) -> InputError:
    """Copy an error, with pairs named by their ids instead of their positions."""

    def named(problem: str) -> str:
        return _POSITION.sub(lambda found: f"pair {pairs[int(found[1])].pair_id!r}: ", problem)

    return InputError(error.message, problems=[named(p) for p in error.problems], hint=error.hint)


async def _disconnected(request: Request) -> None:
    """Wait until the client has gone; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _bounded(request: Request) -> Request:
    """Give the request with its body read, unless it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            # The rest stays unread: the server closes the connection after the answer.
            raise HTTPException(413, f"the request is larger than {MAX_BODY_BYTES // 2**20} MB")

    async def replay() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, replay)


def _problems(error: RequestValidationError) -> Iterator[str]:
    for item in error.errors():
        message = str(item["msg"]).removeprefix("Value error, ")
        yield f"{_where(item['loc'], error.body)}: {message}"


def _where(location: Sequence[str | int], body: object) -> str:
    """Name a field's place, with the pair's id where there is one: ``pair 'p1': premise``."""
    match location:
        case ["body", "pairs", int(index), *rest]:
            try:
                name = repr(body["pairs"][index]["pair_id"])  # type: ignore[index]
            except (KeyError, TypeError, IndexError):
                name = f"number {index}"
            return ": ".join([f"pair {name}", *(str(part) for part in rest)])
        case ["body", *rest]:
            return ".".join(str(part) for part in rest) or "body"
    return ".".join(str(part) for part in location)


def _printable(text: str) -> str:
    """Half surrogate pairs can't be sent: show them escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
