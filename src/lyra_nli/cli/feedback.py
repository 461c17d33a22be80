"""``lyra-nli domains`` and ``lyra-nli reviews``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lyra_nli.cli.options import (
    base_option,
    json_option,
    open_engine,
    open_workspace,
    place_options,
    print_json,
    read_settings,
    who,
)


@click.group()
def domains() -> None:
    """Which sites are blocked or let through."""


@domains.command("list")
@place_options
@click.option("--all", "everything", is_flag=True, help="cleared rules too")
@json_option
def list_domains(config: Path | None, db: str | None, everything: bool, as_json: bool) -> None:
    """The rules, newest first."""
    from lyra_nli.feedback.domains import list_rules
    from lyra_nli.storage.engine import read

    workspace = open_workspace(config, db, read_only=True)
    with read(workspace.engine) as connection:
        rules = list_rules(connection, workspace.generation, active_only=not everything)
    if as_json:
        print_json([asdict(rule) for rule in rules])
        return
    for rule in rules:
        state = rule.decision if rule.is_active else "cleared"
        click.echo(f"{rule.changed_at[:19]:19}  {state:8} {rule.domain_pattern:30} {rule.reason}")
    if not rules:
        click.echo("no rules")


@domains.command("explain")
@click.argument("url")
@place_options
@json_option
def explain(url: str, config: Path | None, db: str | None, as_json: bool) -> None:
    """What applies to a URL, and why."""
    from lyra_nli.feedback.domains import explain as decide
    from lyra_nli.storage.engine import read

    workspace = open_workspace(config, db, read_only=True)
    with read(workspace.engine) as connection:
        decision = decide(connection, workspace.generation, url)
    if as_json:
        print_json(asdict(decision))
        return
    click.echo(f"{decision.host}: {decision.decision}. {decision.why}.")
    for rule in (decision.rule, *decision.losing):
        if rule:
            mark = "*" if rule is decision.rule else " "
            click.echo(f"{mark} {rule.decision:8} {rule.domain_pattern:30} {rule.reason}")


@click.group()
def reviews() -> None:
    """What people said, and taking it back."""


@reviews.command("list")
@place_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--reviewer", help="only this person's")
@click.option("--edge", "edge_id", help="only of this edge")
@click.option("--before", metavar="REVIEW_ID", help="only older ones: the next page")
@json_option
def list_reviews(
    config: Path | None,
    db: str | None,
    limit: int,
    reviewer: str | None,
    edge_id: str | None,
    before: str | None,
    as_json: bool,
) -> None:
    """The newest reviews."""
    from lyra_nli.feedback.reviews import list_reviews as find
    from lyra_nli.storage.engine import read

    workspace = open_workspace(config, db, read_only=True)
    with read(workspace.engine) as connection:
        found = find(
            connection,
            workspace.generation,
            limit=limit,
            before=before,
            reviewer=reviewer,
            edge_id=edge_id,
        )
    if as_json:
        print_json(found)
        return
    for row in found:
        change = f"{row['predicted_label']} -> {row['correct_label']}"
        undone = "  (undone)" if row["undone_at"] else ""
        click.echo(
            f"{row['reviewed_at'][:19]}  {row['id']}  {row['edge_id'] or '-':20}  {change:22}"
            f"  {row['reviewer']}{undone}"
        )
    if not found:
        click.echo("no reviews")


@reviews.command("suspects")
@place_options
@base_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
def suspects(
    config: Path | None, db: str | None, base: str | None, limit: int, as_json: bool
) -> None:
    """Labels to look at again: people disagree, or the newest training can't believe them."""
    from lyra_nli.second_look import doubts

    workspace = open_workspace(config, db, read_only=True)
    version, found = doubts(workspace, base or workspace.settings.nli.fast_model)
    shown = found[:limit]
    if as_json:
        print_json(
            [
                {
                    "id": doubt.review.id,
                    "label": doubt.review.label,
                    "suspicion": doubt.suspicion,
                    "premise": doubt.review.pair.premise,
                    "hypothesis": doubt.review.pair.hypothesis,
                    "reviewer": doubt.review.reviewer,
                }
                for doubt in shown
            ]
        )
        return
    click.echo(f"{len(found)} labels to look at again, by the training of {version}")
    for doubt in shown:
        why = "disputed" if doubt.suspicion is None else f"{doubt.suspicion:.0%} suspect"
        review = doubt.review
        who_said = f" by {review.reviewer}" if review.reviewer else ""
        click.echo(f"\n{review.id}  {review.label}{who_said}: {why}")
        click.echo(f"  {review.pair.hypothesis}\n  from: {review.pair.premise}")


@reviews.command("undo")
@click.argument("review_id")
@place_options
@click.option("--reason", required=True, help="why; kept in the history")
def undo(review_id: str, config: Path | None, db: str | None, reason: str) -> None:
    """Take a review back: its edge stands again as it did before; nothing is deleted."""
    from lyra_nli.feedback.undo import undo_review

    engine = open_engine(read_settings(config, db))
    click.echo(undo_review(engine, review_id, who=who(), reason=reason)["message"])
