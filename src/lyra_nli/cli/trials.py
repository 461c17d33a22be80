"""What ``lyra-nli shadow`` and ``lyra-nli canary`` share: to start, end, find and print a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lyra_nli.cli.options import who

if TYPE_CHECKING:
    from lyra_nli.registry.trials import Trial, TrialKind
    from lyra_nli.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])

reason_option = click.option("--reason", default="", help="why; kept in the history")


def share_option(default: float, words: str) -> Callable[[F], F]:
    """``--share``."""
    kind = click.FloatRange(0, 1, min_open=True)
    return click.option("--share", type=kind, default=default, show_default=True, help=words)


def start(workspace: Workspace, kind: TrialKind, name: str, share: float, reason: str) -> Trial:
    """Put a version on trial."""
    from lyra_nli.registry.trials import Trials

    workspace.generation.require_upgraded()
    trials = Trials(workspace.registry)
    return trials.start(kind, name, share=share, who=who(), reason=reason)


def stop(workspace: Workspace, kind: TrialKind, base: str | None, reason: str) -> Trial:
    """End the open trial of that kind."""
    from lyra_nli.registry.trials import Trials

    base = base or workspace.settings.nli.fast_model
    return Trials(workspace.registry).end(kind, base, who=who(), reason=reason)


def last(workspace: Workspace, kind: TrialKind, base: str | None) -> Trial | None:
    """Give the newest trial of that kind, open or ended."""
    from lyra_nli.registry.trials import Trials

    return Trials(workspace.registry).last(kind, base or workspace.settings.nli.fast_model)


def print_trial(trial: Trial) -> None:
    """Say what is, or was, on trial."""
    why = f" ({trial.reason})" if trial.reason else ""
    click.echo(
        f"{trial.kind} {trial.version}, {100 * trial.share:.4g}% of the traffic of "
        f"{trial.base_model}, since {trial.started_at[:16]} by {trial.started_by}{why}"
    )
    if trial.ended_at:
        why = f": {trial.end_reason}" if trial.end_reason else ""
        click.echo(f"ended {trial.ended_at[:16]} by {trial.ended_by}{why}")
