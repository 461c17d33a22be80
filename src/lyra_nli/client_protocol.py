"""What both clients share: the requests, reading answers, and when to try again.

Nothing here sends anything, so that the sync and the async client can't drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import repeat
from typing import Any, Final, TypeAlias, TypeVar

import httpx
from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from lyra_nli.errors import InputError, LyraNliError, ServerError
from lyra_nli.labels import LABELS, Label, parse_label
from lyra_nli.records import Judgement, Pair

Body: TypeAlias = dict[str, Any]
T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8100"
PAIRS_PER_REQUEST: Final = 256
CHARS_PER_REQUEST: Final = 8_000_000
LONGEST_WAIT_SECONDS: Final = 30.0

_TRY_AGAIN = frozenset({429, 503})
_CONNECTION_ERRORS = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)


class _BusyError(ServerError):
    """The server asks to come again, perhaps after a time that it names."""

    retry_after: float | None = None


def retry_options(attempts: int, backoff: float) -> dict[str, Any]:
    """Tell tenacity when to try again, and after how long."""
    jitter = wait_random_exponential(multiplier=backoff, max=LONGEST_WAIT_SECONDS)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, _BusyError) else None
        return jitter(state) if asked is None else max(asked, 0.0)

    return {
        "stop": stop_after_attempt(attempts),
        "wait": wait,
        "retry": retry_if_exception(_worth_another_try),
        "reraise": True,
    }


def _worth_another_try(error: BaseException) -> bool:
    if isinstance(error, _BusyError):
        # Who asks us to wait longer than anyone would is told no: the caller should know.
        return (error.retry_after or 0.0) <= LONGEST_WAIT_SECONDS
    return isinstance(error, _CONNECTION_ERRORS)


@contextmanager
def server_errors(url: str) -> Iterator[None]:
    """Turn what httpx raises, once no try is left, into an error of ours.

    Raises:
        InputError: a text that can't be sent.
        ServerError: everything else.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError("a text holds half a surrogate pair: not valid Unicode") from error
    except httpx.TimeoutException as error:
        raise ServerError(
            f"the ML server at {url} did not answer in time",
            hint="Send fewer pairs, or give the client a longer timeout.",
        ) from error
    except httpx.HTTPError as error:
        raise ServerError(
            f"no answer from the ML server at {url}: {error or type(error).__name__}",
            hint="Start one with `lyra-nli serve`.",
        ) from error


def server_url(url: str) -> str:
    """Check a server's URL; a path in it is kept.

    Raises:
        InputError: when it is none.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"{url!r} is not the URL of a server: it looks like {DEFAULT_URL}")
    return url.rstrip("/") + "/"


def timeouts(seconds: float) -> httpx.Timeout:
    """Wait that long for an answer, and at most 5 seconds for a connection."""
    return httpx.Timeout(seconds, connect=min(seconds, 5.0))


def load_body(adapter_path: str | None, reason: str) -> Body:
    """Make the body of a load request."""
    return {"adapter_path": adapter_path, "reason": reason or None}


def unload_body(reason: str) -> Body:
    """Make the body of an unload request."""
    return {"reason": reason or None}


def judge_bodies(
    pairs: Sequence[Pair],
    use_slow: bool,
    adapter: str | None,
    sources: Sequence[str],
    **more: float | bool | str | None,
) -> Iterator[Body]:
    """Make requests that stay within the server's limits; a pair's id is its position.

    Args:
        more: fields that are sent as they are, but for those that are None.

    Raises:
        InputError: there are sources, but not one for every pair.
    """
    if sources and len(sources) != len(pairs):
        raise InputError(f"{len(pairs)} pairs and {len(sources)} sources: give one for each")
    fields: Body = {"use_slow": use_slow, "adapter": adapter}
    fields |= {key: value for key, value in more.items() if value is not None}
    batch: list[dict[str, str]] = []
    chars = 0
    for position, (pair, source) in enumerate(zip(pairs, sources or repeat(""), strict=False)):
        size = len(pair.premise) + len(pair.hypothesis)
        if batch and (len(batch) >= PAIRS_PER_REQUEST or chars + size > CHARS_PER_REQUEST):
            yield {"pairs": batch, **fields}
            batch, chars = [], 0
        chars += size
        texts = {"premise": pair.premise, "hypothesis": pair.hypothesis}
        batch.append({"pair_id": str(position), **texts, "source_url": source})
    if batch:
        yield {"pairs": batch, **fields}


def read_answer(response: httpx.Response) -> dict[str, Any]:
    """Give the answer's JSON object.

    Raises:
        ServerError: for every status but 2xx, and for an answer that says it is not ok.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict) and body.get("ok", True) is True:
        return body
    said = body if isinstance(body, dict) else {}
    kind = _BusyError if response.status_code in _TRY_AGAIN else ServerError
    error = kind(
        str(said.get("error") or said.get("message") or _unreadable(response)),
        status=response.status_code,
        problems=[str(problem) for problem in said.get("problems") or ()],
        hint=str(said.get("hint") or ""),
    )
    if isinstance(error, _BusyError):
        error.retry_after = _retry_after(response.headers.get("Retry-After"))
    raise error


def _unreadable(response: httpx.Response) -> str:
    return f"{response.request.url} answered {response.status_code}, not as an ML server does"


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait: the header holds a number or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def judgements(answer: dict[str, Any], body: dict[str, Any]) -> list[Judgement]:
    """Give the judgements in the order of the request.

    Raises:
        ServerError: when a pair has no answer, or an answer is not one.
    """
    try:
        results = {result["pair_id"]: result for result in answer["results"]}
        return [_judgement(results[pair["pair_id"]]) for pair in body["pairs"]]
    except (KeyError, TypeError, ValueError, AttributeError, LyraNliError) as error:
        raise ServerError(
            f"the ML server's answer can't be read: {type(error).__name__}: {error}",
            hint="Is it another program, or another version of lyra-nli?",
        ) from error


def _judgement(result: dict[str, Any]) -> Judgement:
    probabilities: dict[Label, float] = {
        label: float(result["probabilities"][label]) for label in LABELS
    }
    if not all(0.0 <= p <= 1.0 for p in probabilities.values()):
        raise ValueError(f"probabilities {probabilities}")
    calibrated, calibration = result.get("calibrated_confidence"), result.get("calibration")
    if calibrated is not None and not 0.0 <= calibrated <= 1.0:
        raise ValueError(f"calibrated_confidence {calibrated}")
    label = parse_label(result["label"])
    return Judgement(
        label=label,
        confidence=probabilities[label],
        probabilities=probabilities,
        raw_label=str(result["raw_label"]),
        truncated=bool(result["truncated"]),
        adapter=str(result["adapter"]),
        calibrated_confidence=None if calibrated is None else float(calibrated),
        calibration=None if calibration is None else int(calibration),
        windows=int(result.get("windows", 1)),
        evidence=_span(result.get("evidence")),
    )


def _span(value: Sequence[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    start, end = map(int, value)
    return start, end


def below(answers: Sequence[Judgement], threshold: float) -> list[int]:
    """Find the positions of the answers that are less sure than that."""
    return [i for i, answer in enumerate(answers) if answer.confidence < threshold]


def at(positions: Sequence[int], values: Sequence[T]) -> list[T]:
    """Pick the values at these positions; none where there are no values at all."""
    return [values[i] for i in positions] if values else []


def replaced(
    answers: Sequence[Judgement], positions: Sequence[int], better: Sequence[Judgement]
) -> list[Judgement]:
    """Put better answers in the place of doubtful ones."""
    by_position = dict(zip(positions, better, strict=True))
    return [by_position.get(i, answer) for i, answer in enumerate(answers)]
