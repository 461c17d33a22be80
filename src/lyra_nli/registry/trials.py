"""Trials: a version judges live traffic beside the active one before it is trusted with all of it.

A trial is a row that servers follow, as they follow which version is active. A base has one open
trial of each kind at most. Its start and its end stand in the history of versions.
"""

from __future__ import annotations

from lyra_nli.errors import AdapterError, InputError
from lyra_nli.registry import trial_rows
from lyra_nli.registry.fitness import require_fit, verified
from lyra_nli.registry.trial_rows import KINDS, Trial, TrialKind
from lyra_nli.registry.versions import Registry
from lyra_nli.storage.engine import new_id, now, read

__all__ = ["KINDS", "Trial", "TrialKind", "Trials"]


class Trials:
    """The trials of one registry. Any number of threads and processes may use it at once.

    Attributes:
        registry: whose versions are tried out.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def start(
        self, kind: TrialKind, name: str, *, share: float, who: str, reason: str = ""
    ) -> Trial:
        """Put a version on trial.

        Args:
            share: of the pairs (shadow) or the keys (canary), over 0 and up to 1.

        Raises:
            InputError: a share that is none.
            AdapterError: it is active, was removed, or another trial of that kind is open; a
                canary that is not proven needs a reason, as `Registry.activate` does.
            AdapterNotFoundError: there is no such version.
            AdapterInvalidError: its files do not verify.
            StorageError: the database was not upgraded, or can't be written.
        """
        if not 0 < share <= 1:
            raise InputError(f"a share of {share:g}: it lies over 0 and is 1 at most")
        with self.registry.exclusive() as connection:
            version = self.registry.get_in(connection, name)
            if "active" in version.aliases:
                raise AdapterError(
                    f"{version.name} is active: there is nothing to try out",
                    hint="Name a version that does not answer yet (`lyra-nli adapters list`).",
                )
            for trial in trial_rows.open_trials(
                connection, base_model=version.base_model, kind=kind
            ):
                raise AdapterError(
                    f"{trial.version} is the {kind} of {trial.base_model} since "
                    f"{trial.started_at[:16]}: there is one at a time",
                    hint=f"Stop it first: `lyra-nli {kind} stop`.",
                )
            if kind == "canary":
                require_fit(version, reason)
            verified(version)
            return trial_rows.start_trial(
                connection,
                Trial(
                    new_id("nlt"), version.base_model, kind, version.name, share, now(), who, reason
                ),
            )

    def end(
        self, kind: TrialKind, base_model: str, *, who: str, reason: str = "", only: str = ""
    ) -> Trial:
        """End the open trial of that kind.

        Args:
            only: end it only if it has this id; for programs, which may not be the only ones
                to think of it.

        Raises:
            AdapterError: there is none, or another one.
            StorageError: the database can't be written.
        """
        with self.registry.exclusive() as connection:
            found = trial_rows.open_trials(connection, base_model=base_model, kind=kind)
            if not found or only not in ("", found[0].id):
                raise AdapterError(f"{base_model} has no {'such ' if only else ''}{kind}")
            return trial_rows.end_trial(connection, found[0], who=who, reason=reason)

    def open(self, base_model: str) -> list[Trial]:
        """List the open trials of a base; none on a database of an older program."""
        with read(self.registry.engine) as connection:
            return trial_rows.open_trials(connection, base_model=base_model)

    def last(self, kind: TrialKind, base_model: str) -> Trial | None:
        """Give the newest trial of that kind, open or ended; None when there was none."""
        with read(self.registry.engine) as connection:
            found = trial_rows.read_trials(connection, base_model=base_model, kind=kind)
        return found[0] if found else None
