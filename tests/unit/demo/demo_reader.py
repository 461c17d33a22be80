"""Reads the demo's texts as a person would, from the words alone, to check its labels.

Nothing here looks at the generator's facts: figures come out of the text by regular
expressions, and the label follows by rules written down a second time.
"""

from __future__ import annotations

import re
from datetime import date, datetime

INTERVAL = re.compile(r"(-?\d+\.\d+)(?:-| to |, | and )(-?\d+\.\d+)")
P_VALUE = re.compile(r"(?:[Pp] ?([=<]) ?|P value (of|below) )(0\.\d+)")

DIRECTIONS = (
    ("not lower", r"does not (lower|reduce)|fails to|not (significantly )?less likely"
                  r"|did not lower|failed to reduce"),
    ("not higher", r"does not (raise|increase)|not (significantly )?more likely|no greater"
                   r"|did not increase"),
    ("same", r"no significant (difference|effect)|do not differ|neither raises|about as likely"),
    ("lower", r"\b(lowers|reduces|cuts|decreases|lowered|reduced|cut|decreased|fell because)\b"
              r"|less likely|fewer|protects|prevent|superior|lower risk"),
    ("higher", r"\b(raises|increases|raised|increased|rose)\b|more likely|[Mm]ore|greater risk"
               r"|increase|helps|bringing about"),
)  # fmt: skip


def direction(claim: str) -> str:
    """What a claim says about an effect."""
    return next(name for name, pattern in DIRECTIONS if re.search(pattern, claim))


def interval(text: str, nth: int = 0) -> tuple[float, float]:
    """The nth printed confidence interval."""
    low, high = INTERVAL.findall(text)[nth]
    return float(low), float(high)


def side(low: float, high: float, neutral: float) -> str:
    """Where an interval lies."""
    return "lower" if high < neutral else "higher" if low > neutral else "same"


def reading_from_p(text: str) -> str:
    """What percentages with a p value say."""
    sign, below, figure = P_VALUE.search(text).groups()
    if sign != "<" and below != "below" and float(figure) >= 0.05:
        return "same"
    if re.search(r"\bfell from\b", text):
        return "lower"
    if re.search(r"\brose from\b", text):
        return "higher"
    treated, control = re.findall(r"(\d+\.\d)%", text)[:2]
    return "lower" if float(treated) < float(control) else "higher"


def effect_label(reading: str, claimed: str) -> str:
    """The codebook's table, as a set of statements that hold under each finding."""
    holds = {
        "lower": {"lower", "not higher"},
        "higher": {"higher", "not lower"},
        "same": {"same", "not lower", "not higher"},
    }
    return "supports" if claimed in holds[reading] else "refutes"


def number(text: str, pattern: str) -> int:
    """The number at the group of a pattern, without its separators."""
    return int(re.search(pattern, text)[1].replace(",", ""))


def least_bound(text: str) -> int:
    """The smallest size that a law binds."""
    figure = r"([\d,]*\d)"
    for pattern, extra in (
        (rf"{figure} or more", 0),
        (rf"at least {figure}", 0),
        (rf"fewer than {figure}", 0),
        (rf"begins at {figure}", 0),
        (rf"more than {figure}", 1),
        (rf"save those with {figure}", 1),
        (rf"up to and including {figure}", 1),
    ):
        if re.search(pattern, text):
            return number(text, pattern) + extra
    raise AssertionError(text)


def dates(text: str) -> list[date]:
    """Every date in a text."""
    found = re.findall(r"\b(\d{1,2} [A-Z][a-z]+ \d{4})", text)
    return [datetime.strptime(item, "%d %B %Y").date() for item in found]


def fine_bounds(text: str) -> tuple[int, int]:
    """The bounds of a fine."""
    both = re.search(r"(?:between|at least) ([\d,]+) and (?:at most )?([\d,]+) crowns", text)
    if both:
        return int(both[1].replace(",", "")), int(both[2].replace(",", ""))
    return 0, number(text, r"([\d,]*\d) crowns")
