"""A version that learned from one site alone: trained, proven, shown, routed."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from serving_world import body, live_server
from tiny_domain import reviewed_pairs, tiny_settings, write_reviews

from lyra_nli import loop
from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterError, DatasetError, InputError
from lyra_nli.feedback.importing import import_file
from lyra_nli.reproduction import reproduce
from lyra_nli.storage.engine import read
from lyra_nli.storage.reviews import count_reviews
from lyra_nli.storage.runs import last_finished_training
from lyra_nli.storage.upgrade import init_database
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration

SITES = ("www.trials.org", "blog.trials.org", "law.example.co.uk")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """240 reviews, two thirds of them of one site, and a general version that is active."""
    monkeypatch.setenv("LYRA_NLI_CACHE", str(tmp_path / "cache"))
    settings = tiny_settings(tmp_path)
    dataset = settings.dataset.model_copy(update={"min_samples": 60})
    settings = settings.model_copy(update={"dataset": dataset})
    init_database(settings.storage.database_path)
    workspace = Workspace.open(settings)
    file = write_reviews(settings, tmp_path, reviewed_pairs(240))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["source_url"] = f"https://{SITES[number % 3]}/{number}"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_file(workspace.engine, file)
    return workspace


def test_it_learns_from_its_site_alone_and_is_routed_not_activated(workspace: Workspace) -> None:
    base = workspace.settings.nli.fast_model
    general = loop.train(workspace, base, who="t", forced_reason="first")
    assert general.activated
    with read(workspace.engine) as connection:
        trained_at = last_finished_training(connection, base)
    import_file(workspace.engine, _more(workspace))
    with read(workspace.engine) as connection:
        before = count_reviews(connection, workspace.generation).corrected_unused
    assert before > 0

    outcome = loop.train(workspace, base, who="t", domain="https://trials.org/any/page")

    version, registry = outcome.version, workspace.registry
    site = {r.id for r in workspace.reviews().reviews if "trials.org" in r.source_url}
    reviewed = [e for e in outcome.dataset.examples() if not e.id.startswith("replay:")]
    assert {example.id for example in reviewed} <= site
    assert len(reviewed) > 0.9 * len(site)
    assert version.domain == registry.manifest_of(version).metrics["domain"] == "trials.org"
    assert "trials.org alone" in (version.path / "report.md").read_text()
    # Held against the base and the active version, on rows of its site.
    assert {example.id for example in outcome.dataset.holdout} <= site
    assert outcome.verdict.active == general.version.name
    assert {"base", "active", "candidate"} <= outcome.verdict.populations[0].scores.keys()
    # For everybody else nothing has changed.
    assert not outcome.activated
    active = registry.active(base)
    assert active is not None
    assert active.name == general.version.name
    with read(workspace.engine) as connection:
        assert count_reviews(connection, workspace.generation).corrected_unused == before
        assert last_finished_training(connection, base) == trained_at
    assert reproduce(workspace, version.name).name == version.name

    nli = workspace.settings.nli.model_copy(update={"routes": {"trials.org": version.name}})
    pairs = [pair for pair, _ in reviewed_pairs(3, seed=9)]
    request = body(pairs)
    for pair, host in zip(request["pairs"], SITES, strict=True):
        pair["source_url"] = f"https://{host}/page"
    with live_server(workspace.settings.model_copy(update={"nli": nli})) as url:
        results = httpx.post(f"{url}/nli", json=request, trust_env=False).json()["results"]
        listed = httpx.get(f"{url}/nli/adapters", trust_env=False).json()["adapters"]
    names = [result["adapter"] for result in results]
    assert names == [version.name, version.name, general.version.name]
    assert {item["name"]: item["domain"] for item in listed} == {
        general.version.name: "",
        version.name: "trials.org",
    }


def _more(workspace: Workspace) -> Path:
    folder = Path(workspace.settings.nli.adapters_dir).parent
    return write_reviews(workspace.settings, folder, reviewed_pairs(30, seed=5))


def test_a_domain_needs_corrections_of_its_own(workspace: Workspace) -> None:
    base = workspace.settings.nli.fast_model
    with pytest.raises(DatasetError, match=r"corrections of example\.co\.uk: \d\d so far") as error:
        workspace.enough_reviews("example.co.uk")
    assert "at least 60" in error.value.message
    with pytest.raises(DatasetError, match=r"no reviews of the domain 'nowhere\.org'") as error:
        loop.train(workspace, base, who="t", domain="nowhere.org")
    assert "trials.org: 160 reviews" in error.value.problems


def test_the_command_says_how_to_route_it(workspace: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(workspace.settings.model_dump_json())
    place = ["--config", str(config)]
    runner = CliRunner()
    for option in ("--if-due", "--promote-anyway"):
        command = ["train", "--domain", "trials.org", option, "--reason", "r", *place]
        assert isinstance(runner.invoke(cli, command).exception, InputError)
    run = runner.invoke(cli, ["train", "--domain", "trials.org", "--no-activate", *place])
    assert run.exit_code == 0, run.output
    assert "nli: {routes: {trials.org: lora-lyra-v1}}" in run.output
    refused = runner.invoke(cli, ["adapters", "activate", "v1", *place]).exception
    assert isinstance(refused, AdapterError)
    assert refused.message == "lora-lyra-v1 was trained and proven for trials.org only"
    listed = runner.invoke(cli, ["adapters", "list", *place]).output
    assert listed.rstrip().endswith("for trials.org alone")
    shown = runner.invoke(cli, ["adapters", "show", "v1", "--json", *place])
    assert json.loads(shown.output)["domain"] == "trials.org"
