"""Domain patterns: ``example.com`` for one host, ``*.example.com`` for all below it."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lyra_nli.errors import FeedbackError

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_EXPECTED = "example.com or *.example.com"
_MAX_CHARS = 253
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


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
    if _suffixes().is_public(host):
        raise _covers_too_much(pattern, f"{host} is a public suffix")
    return f"*.{host}" if wild else host


def host_of(url: str) -> str:
    """Find the host in a URL, or take a bare host; lower case, in its ASCII form.

    Raises:
        FeedbackError: when there is none.
    """
    url = url.strip()
    try:
        host = urlsplit(url if _SCHEME.match(url) else f"//{url}").hostname or ""
    except ValueError:
        host = ""
    if not host:
        raise FeedbackError(
            f"there is no host in {url[:200]!r}",
            code="wrong_value",
            parameter="url",
            expected="https://example.com/page",
        )
    return comparable(host)


def site_of(url: str) -> str:
    """Name the registrable domain of a URL, ``example.co.uk``: whose site it is.

    A host without one (an address, ``localhost``) stands for itself; empty where there is none.
    """
    try:
        host = host_of(url)
    except FeedbackError:
        return ""
    if _is_address(host):
        return host
    return _suffixes().privatesuffix(host) or host


def comparable(name: str) -> str:
    """Bring a host, or a pattern that another program has stored, to the form of comparison."""
    import idna

    name = name.strip().lower().rstrip(".")
    if name.isascii():
        return name
    star = "*." if name.startswith("*.") else ""
    try:
        return star + idna.encode(name.removeprefix("*."), uts46=True).decode()
    except UnicodeError:
        return name  # equals only itself


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
    if _is_address(host):
        raise _malformed(pattern, "an address is no domain")
    return host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


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
