"""Hosts: the name in a URL, and whose site it is."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lyra_nli.errors import FeedbackError

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


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
    if is_address(host):
        return host
    return suffixes().privatesuffix(host) or host


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


def is_address(name: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@cache
def suffixes() -> PublicSuffixList:
    """Read the Public Suffix List, its private section too; once."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
