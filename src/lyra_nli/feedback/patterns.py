"""Domain patterns: ``example.com`` for one host, ``*.example.com`` for all below it."""

from __future__ import annotations

from lyra_nli.errors import FeedbackError
from lyra_nli.hosts import is_address, suffixes

_EXPECTED = "example.com or *.example.com"
_MAX_CHARS = 253


def normalise_pattern(pattern: str) -> str:
    """Write a pattern as rules keep it: lower case, in the ASCII form of its name.

    ``*.example.com`` covers every host below ``example.com``, as in a certificate: not
    ``example.com`` itself.

    Raises:
        FeedbackError: ``bad_pattern`` for what is neither form or is no valid name (IDNA
            2008, so broken punycode too); ``public_suffix`` for what covers a public suffix.
            The whole Public Suffix List counts, its private section too: below ``github.io``
            as below ``co.jp`` live people who have nothing to do with each other.
    """
    name = pattern.strip().lower()
    wild = name.startswith("*.")
    if name and set(name) <= {"*", "."}:
        raise _covers_too_much(pattern, "it covers every domain")
    host = _ascii_name(name.removeprefix("*."), pattern)
    if suffixes().is_public(host):
        raise _covers_too_much(pattern, f"{host} is a public suffix")
    return f"*.{host}" if wild else host


def covers(pattern: str, host: str) -> bool:
    """Whether a pattern, in comparable form, says something about a host."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern == host


def _ascii_name(name: str, pattern: str) -> str:
    import idna

    if not name or len(name) > _MAX_CHARS:
        raise _malformed(pattern, "it is empty" if not name else "it is too long")
    if "*" in name:
        raise _malformed(pattern, "* may only stand at the start, before a dot")
    try:
        host = idna.encode(name, uts46=True).decode().removesuffix(".")
    except UnicodeError as error:
        raise _malformed(pattern, str(error)) from error
    if is_address(host):
        raise _malformed(pattern, "an address is no domain")
    return host


def _malformed(pattern: str, why: str) -> FeedbackError:
    return FeedbackError(
        f"{pattern[:200]!r} is no domain pattern: {why}",
        code="bad_pattern",
        parameter="domain_pattern",
        expected=_EXPECTED,
    )


def _covers_too_much(pattern: str, why: str) -> FeedbackError:
    return FeedbackError(
        f"{pattern[:200]!r} would cover sites that have nothing to do with each other: {why}",
        code="public_suffix",
        parameter="domain_pattern",
        expected=_EXPECTED,
    )
