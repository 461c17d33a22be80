"""What the dashboard's actions ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

BaseRole = Literal["fast", "slow"]

Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$"),
    Field(description="why; the history keeps it"),
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=100, pattern=r"^[^\x00]*$"),
    Field(description="who asks, for the history; the token knows no names"),
]


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Reason
    name: Name = ""

    @property
    def who(self) -> str:
        """What the history calls the one who asked."""
        return f"dashboard: {self.name}" if self.name else "dashboard"


class ActivateRequest(_Action):
    """Let a version serve its base."""

    version: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class RollbackRequest(_Action):
    """Go back to what served before."""

    base: BaseRole = "fast"


class TrainRequest(_Action):
    """Train now, due or not."""

    base: BaseRole = "fast"
