"""The demo: one turn of the loop on a sample project, with every real component.

`run` reads as the loop does: judge, review, train, prove, activate, judge again, roll back.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from lyra_nli import loop
from lyra_nli.client import MLClient
from lyra_nli.clock import Clock
from lyra_nli.demo.project import Reviewer, record_judgements, write_project
from lyra_nli.demo.server import running_server, wait_for_version
from lyra_nli.demo.world import Edge, World
from lyra_nli.errors import InputError
from lyra_nli.evaluation.metrics import Scores, score
from lyra_nli.feedback.edges import EdgeReview, correct_edges
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import Settings, load_settings
from lyra_nli.storage.engine import read
from lyra_nli.storage.upgrade import init_database
from lyra_nli.training.due import Due, check_due
from lyra_nli.workspace import Workspace

UNSEEN_SHARE = 0.3
"""Topics that nobody reviews: the demo's own hold-out, besides the gate's."""

_MARKER = ".lyra-nli-demo"
_WHO = "demo"


@dataclass
class Result:
    """What the demo saw.

    Attributes:
        before, after: scores on the unseen pairs, of the base and of the new version.
        fixed, broken: unseen pairs that the version got right and the base wrong; reverse.
        restored: after the rollback the server gave the base's answers again: the same
            labels, and probabilities that differ by rounding alone (batches differ).
        follow_seconds: from the activation to the first answer of the new version.
        seconds: by step, in order.
    """

    pairs: int
    due: Due
    corrected: int
    agreed: int
    outcome: loop.Outcome
    before: Scores
    after: Scores
    fixed: int
    broken: int
    restored: bool
    follow_seconds: float
    rollback_seconds: float
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    world: World,
    folder: Path,
    *,
    base: str,
    slip_rate: float,
    seed: int,
    say: Callable[[str], None],
) -> Result:
    """Play the whole loop in `folder`.

    Args:
        base: the base model, ``starter`` unless the user has another.
        slip_rate: share of the reviewer's verdicts that are wrong.
        say: told of every step as it begins.

    Raises:
        InputError: when `folder` holds something that is not a demo.
        LyraNliError: whatever the loop itself raises.
    """
    clock = Clock(say)
    settings = prepare(folder, base)
    with clock.step(f"write a project of {len(world.edges)} pairs"):
        init_database(settings.storage.database_path)
        workspace = Workspace.open(settings)
        write_project(workspace.engine, world)
    texts = world.pairs()
    reviewed, unseen = split_topics(world.edges, seed)
    with ExitStack() as stack:
        with clock.step("start the ML server"):
            client = stack.enter_context(running_server(folder))
        with clock.step(f"judge {len(world.edges)} pairs over HTTP"):
            first = _judge(client, world.edges, texts)
            record_judgements(workspace.engine, first)
        with clock.step(f"review {len(reviewed)} of them"):
            corrected, agreed = _review(workspace, world, reviewed, slip_rate, seed)
        due = _due(workspace, base)
        with clock.step("train and prove a version"):
            outcome = loop.train(
                workspace,
                base,
                who=_WHO,
                forced_reason="" if due.due else "the demo trains in any case",
                activate=False,
            )
        name = outcome.version.name
        with clock.step(f"activate {name}"):
            follow = _activate(workspace, client, name, outcome.verdict.outcome)
        with clock.step(f"judge the {len(unseen)} unseen pairs again"):
            second = _judge(client, unseen, texts)
        with clock.step("roll back"):
            workspace.registry.rollback(base, who=_WHO, reason="the demo shows that it can")
            back = wait_for_version(client, None)
        with clock.step("judge them a third time"):
            third = _judge(client, unseen, texts)
    labels = np.array([INDEX[edge.label] for edge in unseen], dtype=np.int64)
    base_answers = {edge.id: first[edge.id] for edge in unseen}
    right_before = _probabilities(base_answers, unseen).argmax(axis=1) == labels
    right_after = _probabilities(second, unseen).argmax(axis=1) == labels
    return Result(
        pairs=len(world.edges),
        due=due,
        corrected=corrected,
        agreed=agreed,
        outcome=outcome,
        before=score(_probabilities(base_answers, unseen), labels),
        after=score(_probabilities(second, unseen), labels),
        fixed=int((~right_before & right_after).sum()),
        broken=int((right_before & ~right_after).sum()),
        restored=bool(
            np.allclose(
                _probabilities(third, unseen), _probabilities(base_answers, unseen), atol=1e-5
            )
        ),
        follow_seconds=follow,
        rollback_seconds=back,
        seconds=clock.seconds,
    )


def prepare(folder: Path, base: str) -> Settings:
    """Make an empty project folder with its own settings, or empty an earlier demo's.

    Raises:
        InputError: when the folder holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", hint="Name another folder with --dir.")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).is_file():
            raise InputError(
                f"{folder} is not empty and not a demo", hint="Name another folder with --dir."
            )
        shutil.rmtree(folder)
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    file = folder / "config" / "settings.yaml"
    file.write_text(yaml.safe_dump({"nli": {"fast_model": base}}), "utf-8")
    return load_settings(
        file,
        {
            "storage": {"database_path": str(folder / "data" / "lyra.db")},
            "nli": {"adapters_dir": str(folder / "adapters")},
        },
    )


def split_topics(edges: Sequence[Edge], seed: int) -> tuple[list[Edge], list[Edge]]:
    """(reviewed, unseen): whole topics on either side."""
    topics = sorted({edge.topic for edge in edges})
    random.Random(seed).shuffle(topics)
    unseen = set(topics[: max(1, round(UNSEEN_SHARE * len(topics)))])
    return (
        [edge for edge in edges if edge.topic not in unseen],
        [edge for edge in edges if edge.topic in unseen],
    )


def _judge(
    client: MLClient, edges: Sequence[Edge], texts: Mapping[str, Pair]
) -> dict[str, Judgement]:
    answers = client.judge([texts[edge.id] for edge in edges])
    return {edge.id: answer for edge, answer in zip(edges, answers, strict=True)}


def _review(
    workspace: Workspace, world: World, edges: Sequence[Edge], slip_rate: float, seed: int
) -> tuple[int, int]:
    """Review edges as Lyra's feedback tool does; returns (corrected, agreed)."""
    reviewer = Reviewer(world, slip_rate=slip_rate, seed=seed)
    done = correct_edges(
        workspace.engine,
        [
            EdgeReview(
                edge.id,
                reviewer.verdict(edge.id),
                reviewer=_WHO,
                sampling="random",
                predicted_by="base",
            )
            for edge in edges
        ],
    )
    corrected = sum(result.sample_id is not None for result in done)
    return corrected, len(done) - corrected


def _due(workspace: Workspace, base: str) -> Due:
    with read(workspace.engine) as connection:
        return check_due(connection, workspace.generation, workspace.settings.due, base)


def _activate(workspace: Workspace, client: MLClient, name: str, verdict: str) -> float:
    """Activate the version and wait until the server follows; returns seconds."""
    reason = "" if verdict == "pass" else f"the demo goes on although the gate says {verdict}"
    workspace.registry.activate(name, who=_WHO, reason=reason)
    return wait_for_version(client, name)


def _probabilities(answers: Mapping[str, Judgement], edges: Sequence[Edge]) -> np.ndarray:
    return np.array([[answers[e.id].probabilities[label] for label in LABELS] for e in edges])
