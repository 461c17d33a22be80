"""Asking an ML server: ``MLClient``, ``AsyncMLClient``, and the fast-then-slow judge.

A failure is an error, never a made-up label: every call returns what the server said, or
raises ServerError. Connection errors and the answers 429 and 503 are tried again, with
exponential back-off and jitter, or after what the server's Retry-After asks for.

    with MLClient("http://127.0.0.1:8100") as client:
        [judgement] = client.judge([Pair(premise, hypothesis)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, Retrying

from lyra_nli.client_protocol import (
    DEFAULT_URL,
    Body,
    at,
    below,
    judge_bodies,
    judgements,
    load_body,
    read_answer,
    replaced,
    retry_options,
    server_errors,
    server_url,
    timeouts,
    unload_body,
)
from lyra_nli.records import Judgement, Pair


class MLClient:
    """A client of the ML server. Thread-safe; close it, or use it as a context manager.

    Args:
        url: where the server is; a path in it is kept.
        timeout: seconds to wait for an answer. A request holds up to 256 pairs, and the slow
            model's first one waits until that model is loaded.
        attempts: how often to try in all.
        backoff: seconds that the first wait between two tries may last; then doubling.
        transport: an httpx transport, for tests or a proxy of your own.

    Raises:
        InputError: when the URL is none.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 120.0,
        attempts: int = 5,
        backoff: float = 0.25,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = server_url(url)
        self._retry = retry_options(attempts, backoff)
        # The environment's proxies are not asked: the server is on this machine or near it.
        self._http = httpx.Client(
            base_url=self.url, timeout=timeouts(timeout), transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def judge(
        self,
        pairs: Sequence[Pair],
        use_slow: bool = False,
        adapter: str | None = None,
        sources: Sequence[str] = (),
        *,
        slow_below: float | None = None,
        windows: bool | None = None,
        deadline_seconds: float | None = None,
        key: str | None = None,
    ) -> list[Judgement]:
        """Judge pairs, answers in the same order.

        Args:
            pairs: any number; they are sent in several requests where that is needed.
            use_slow: ask the slow model.
            adapter: ``active``, ``base`` or a version's name. None: what the server routes the
                site of a pair's source to, else ``active``.
            sources: the URL that each premise comes from, empty where nobody knows; or none.
            slow_below: let the server ask the slow model where the fast one's confidence is
                below this. ``nli_judge`` does the same with servers that don't know of it.
            windows: judge long premises by windows; None: as the server's settings say.
            deadline_seconds: each request (of up to 256 pairs) is given up after this.
            key: of a task or a user: while a canary is tried out, one key gets one version.

        Raises:
            ServerError: the server can't be reached or refuses; ``status`` and ``problems``
                say why, and name a pair by its position.
        """
        more = {
            "slow_below": slow_below,
            "windows": windows,
            "deadline_seconds": deadline_seconds,
            "key": key,
        }
        answers: list[Judgement] = []
        for body in judge_bodies(pairs, use_slow, adapter, sources, **more):
            answers += judgements(self._call("POST", "/nli", body), body)
        return answers

    def status(self) -> dict[str, Any]:
        """Tell what the server serves: version, digest, base, and what keeps it from following."""
        return self._call("GET", "/nli/adapter/status")

    def health(self) -> dict[str, Any]:
        """Tell whether the server is up, and which models it has loaded."""
        return self._call("GET", "/health")

    def load_adapter(self, adapter_path: str | None = None, reason: str = "") -> dict[str, Any]:
        """Make a registered version active, by its folder or name; see the server's docs."""
        return self._call("POST", "/nli/adapter/load", load_body(adapter_path, reason))

    def unload_adapter(self, reason: str = "") -> dict[str, Any]:
        """Let the untouched base serve."""
        return self._call("POST", "/nli/adapter/unload", unload_body(reason))

    def _call(self, method: str, path: str, body: Body | None = None) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            return read_answer(self._http.request(method, path.lstrip("/"), json=body))

        with server_errors(self.url):
            return Retrying(**self._retry)(once)


class AsyncMLClient:
    """``MLClient`` for asyncio; arguments, answers and errors are the same."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 120.0,
        attempts: int = 5,
        backoff: float = 0.25,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = server_url(url)
        self._retry = retry_options(attempts, backoff)
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeouts(timeout), transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def judge(
        self,
        pairs: Sequence[Pair],
        use_slow: bool = False,
        adapter: str | None = None,
        sources: Sequence[str] = (),
        *,
        slow_below: float | None = None,
        windows: bool | None = None,
        deadline_seconds: float | None = None,
        key: str | None = None,
    ) -> list[Judgement]:
        """See ``MLClient.judge``."""
        more = {
            "slow_below": slow_below,
            "windows": windows,
            "deadline_seconds": deadline_seconds,
            "key": key,
        }
        answers: list[Judgement] = []
        for body in judge_bodies(pairs, use_slow, adapter, sources, **more):
            answers += judgements(await self._call("POST", "/nli", body), body)
        return answers

    async def status(self) -> dict[str, Any]:
        """See ``MLClient.status``."""
        return await self._call("GET", "/nli/adapter/status")

    async def health(self) -> dict[str, Any]:
        """See ``MLClient.health``."""
        return await self._call("GET", "/health")

    async def load_adapter(
        self, adapter_path: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """See ``MLClient.load_adapter``."""
        return await self._call("POST", "/nli/adapter/load", load_body(adapter_path, reason))

    async def unload_adapter(self, reason: str = "") -> dict[str, Any]:
        """See ``MLClient.unload_adapter``."""
        return await self._call("POST", "/nli/adapter/unload", unload_body(reason))

    async def _call(self, method: str, path: str, body: Body | None = None) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            return read_answer(await self._http.request(method, path.lstrip("/"), json=body))

        with server_errors(self.url):
            return await AsyncRetrying(**self._retry)(once)


def nli_judge(
    client: MLClient,
    pairs: Sequence[Pair],
    threshold: float = 0.7,
    sources: Sequence[str] = (),
    key: str | None = None,
) -> list[Judgement]:
    """Judge with the fast model, and again with the slow one where that was unsure.

    Args:
        client: where to ask.
        pairs: what to judge.
        threshold: below this confidence of the fast model, the slow one's answer counts.
        sources: the URL that each premise comes from; or none.
        key: see ``MLClient.judge``.

    Returns:
        one judgement a pair, in order.

    Raises:
        ServerError: either model failed; the fast model's doubtful answers are no substitute.
    """
    answers = client.judge(pairs, sources=sources, key=key)
    doubtful = below(answers, threshold)
    better = client.judge(
        at(doubtful, pairs), use_slow=True, sources=at(doubtful, sources), key=key
    )
    return replaced(answers, doubtful, better)


async def async_nli_judge(
    client: AsyncMLClient,
    pairs: Sequence[Pair],
    threshold: float = 0.7,
    sources: Sequence[str] = (),
    key: str | None = None,
) -> list[Judgement]:
    """See ``nli_judge``."""
    answers = await client.judge(pairs, sources=sources, key=key)
    doubtful = below(answers, threshold)
    better = await client.judge(
        at(doubtful, pairs), use_slow=True, sources=at(doubtful, sources), key=key
    )
    return replaced(answers, doubtful, better)
