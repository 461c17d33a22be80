"""Every error that lyra-nli raises on purpose.

LyraNliError                    exit  http
├── InputError                     2   422   the caller's data or arguments
│   ├── SettingsError              2   500   the settings file or LYRA_* variables
│   └── FeedbackError              2   422   what was asked of the evidence can't be done
│       └── ConflictError          2   409   somebody else changed it meanwhile
├── StorageError                   3   503   the database is missing, read-only, busy, foreign
├── DatasetError                   4   409   the reviews can't make a dataset (too few, tied)
├── ModelError                     5   503   a base model can't be had, or can't be mapped
├── AdapterError                   6   409   an adapter can't be used as asked
│   ├── AdapterNotFoundError       6   404
│   ├── AdapterExistsError         6   409   the name or the place is taken
│   └── AdapterInvalidError        6   422   damaged, foreign or unsafe files
├── BusyError                      1   429   too many pairs wait for the model
├── LateError                      1   504   not judged before the deadline
├── TrainingError                  7   500   a training run could not finish
└── ServerError                    8   502   the client's view of an ML server that failed

An error carries one sentence that says what was wrong, the list of all single problems,
and a hint that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class LyraNliError(Exception):
    """Base of all expected errors.

    Args:
        message: one sentence, what was wrong.
        problems: every single problem found, one line each.
        hint: what the reader can do about it.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class InputError(LyraNliError):
    """The caller's data or arguments are wrong."""

    exit_code = 2
    http_status = 422


class SettingsError(InputError):
    """The settings file or a LYRA_* environment variable is wrong."""

    http_status = 500


class FeedbackError(InputError):
    """What was asked of the evidence can't be done: a program can read why from the code.

    Args:
        code: ``missing``, ``unknown_action``, ``unknown_parameter``, ``wrong_type``,
            ``wrong_value``, ``too_long``, ``unknown_edge``, ``unknown_claim``,
            ``unknown_review``, ``unknown_evaluation``, ``unknown_version``, ``not_nli``,
            ``public_suffix``, ``bad_pattern``, ``too_few_reviews``, ``conflict`` or
            ``idempotency_key_reused``.
        parameter: the argument that is at fault; empty when none is.
        expected: what it should have been.
        details: when several arguments are wrong, ``code``, ``parameter``, ``expected`` and
            ``message`` of each; the first is the error's own.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        parameter: str = "",
        expected: str = "",
        problems: Sequence[str] = (),
        hint: str = "",
        details: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message, problems=problems, hint=hint)
        self.code = code
        self.parameter = parameter
        self.expected = expected
        own = {"code": code, "parameter": parameter, "expected": expected, "message": message}
        self.details: tuple[dict[str, str], ...] = tuple(map(dict, details)) or (own,)


class ConflictError(FeedbackError):
    """Somebody else changed it meanwhile: look again before you decide."""

    http_status = 409

    def __init__(
        self,
        message: str,
        *,
        parameter: str = "",
        expected: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(
            message, code="conflict", parameter=parameter, expected=expected, hint=hint
        )


class StorageError(LyraNliError):
    """The database is missing, empty, read-only, busy or not ours to read."""

    exit_code = 3
    http_status = 503


class DatasetError(LyraNliError):
    """The reviews can't make a dataset that is worth training on."""

    exit_code = 4
    http_status = 409


class ModelError(LyraNliError):
    """A base model can't be reached, loaded or mapped to the three labels."""

    exit_code = 5
    http_status = 503


class AdapterError(LyraNliError):
    """An adapter can't be used in the way that was asked."""

    exit_code = 6
    http_status = 409


class SupersededError(AdapterError):
    """Something else serves than when the work began."""


class AdapterNotFoundError(AdapterError):
    """No adapter of that name or path is known."""

    http_status = 404


class AdapterExistsError(AdapterError):
    """The name or the place is taken; nothing is ever overwritten."""


class AdapterInvalidError(AdapterError):
    """The adapter's files are damaged, unsafe, or made for another base model."""

    http_status = 422


class BusyError(LyraNliError):
    """Too many pairs wait for the model already.

    Args:
        retry_after: seconds until there should be room.
    """

    http_status = 429

    def __init__(self, message: str, *, retry_after: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class LateError(LyraNliError):
    """A request was not judged before its deadline."""

    http_status = 504


class TrainingError(LyraNliError):
    """A training run could not finish; no version was made."""

    exit_code = 7


class ServerError(LyraNliError):
    """The ML server could not be reached, or answered with an error."""

    exit_code = 8
    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problems: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, problems=problems, hint=hint)
        self.status = status
