"""Settings: where they come from, which source wins, and what is said about wrong ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from lyra_nli.errors import SettingsError
from lyra_nli.settings import NliSettings, Settings, TrainingSettings, load_settings

SHIPPED = Path(__file__).parents[2] / "config" / "settings.yaml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """An empty working directory, and none of the variables of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("LYRA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "some.yaml"
        file.write_text(text, "utf-8")
        return file

    return write


def problems_of(file=None, overrides=None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, overrides)
    assert caught.value.message.startswith(f"{len(caught.value.problems)} wrong setting")
    return list(caught.value.problems)


class TestTheShippedFile:
    def test_holds_every_key_with_its_default_and_nothing_else(self):
        shipped = yaml.safe_load(SHIPPED.read_text("utf-8"))
        assert shipped == Settings().model_dump(mode="json")

    def test_keeps_the_order_of_the_code(self):
        shipped = yaml.safe_load(SHIPPED.read_text("utf-8"))
        defaults = Settings().model_dump(mode="json")
        assert [*shipped] == [*defaults]
        assert {name: [*keys] for name, keys in shipped.items()} == {
            name: [*keys] for name, keys in defaults.items()
        }

    def test_loads_as_the_defaults(self):
        assert load_settings(SHIPPED) == Settings()

    def test_says_what_every_described_key_is_for(self):
        text = SHIPPED.read_text("utf-8")
        for section in Settings.model_fields.values():
            for name, field in section.annotation.model_fields.items():
                if field.description:
                    assert f"# {field.description}\n" in text, name


class TestSources:
    def test_no_file_means_the_defaults(self):
        assert load_settings() == Settings()

    def test_the_file_in_the_working_directory_is_found(self, tmp_path):
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "settings.yaml").write_text("due: {min_samples: 7}\n")
        assert load_settings().due.min_samples == 7

    def test_a_variable_beats_the_file_and_leaves_its_neighbours(self, write, monkeypatch):
        monkeypatch.setenv("LYRA_NLI__FAST_MODEL", "starter")
        settings = load_settings(write("nli: {fast_model: mine, slow_model: other}\n"))
        assert settings.nli.fast_model == "starter"
        assert settings.nli.slow_model == "other"

    def test_an_option_beats_a_variable(self, write, monkeypatch):
        monkeypatch.setenv("LYRA_TRAINING__RANK", "5")
        monkeypatch.setenv("LYRA_TRAINING__EPOCHS", "6")
        settings = load_settings(write("training: {rank: 4}\n"), {"training": {"rank": 9}})
        assert settings.training.rank == 9
        assert settings.training.epochs == 6

    def test_variables_are_read_when_asked_not_at_import(self, monkeypatch):
        before = load_settings().ml_server.port
        monkeypatch.setenv("LYRA_ML_SERVER__PORT", str(before + 1))
        assert load_settings().ml_server.port == before + 1

    def test_null_in_a_variable_is_nothing(self, monkeypatch):
        monkeypatch.setenv("LYRA_NLI__FAST_REVISION", "null")
        assert load_settings().nli.fast_revision is None

    @pytest.mark.parametrize("text", ["query,value,output", '["query", "value", "output"]'])
    def test_a_list_in_a_variable_is_written_with_commas_or_as_json(self, monkeypatch, text):
        monkeypatch.setenv("LYRA_TRAINING__TARGET_MODULES", text)
        assert load_settings().training.target_modules == ("query", "value", "output")

    def test_strengths_in_a_variable_are_json(self, monkeypatch):
        monkeypatch.setenv("LYRA_TRAINING__STRENGTHS", "[0.5, 1]")
        assert load_settings().training.strengths == (0.5, 1.0)

    def test_one_module_needs_no_list(self, write):
        settings = load_settings(write("training: {target_modules: all, layers: 6}\n"))
        assert settings.training.target_modules == ("all",)
        assert settings.training.layers == 6

    def test_lyras_own_sections_and_variables_pass(self, write, monkeypatch):
        monkeypatch.setenv("LYRA_GENERAL__LOG_LEVEL", "DEBUG")
        monkeypatch.setenv("LYRA_NLI_CACHE", "somewhere")
        file = write("general: {log_level: INFO}\ncrawler: [1, 2]\ndue: {min_days: 1}\n")
        assert load_settings(file).due.min_days == 1

    @pytest.mark.parametrize("text", ["", "# nothing\n", "nli:\ntraining:\n"])
    def test_empty_files_and_empty_sections_mean_the_defaults(self, write, text):
        assert load_settings(write(text)) == Settings()


class TestWrongSettings:
    def test_all_are_named_at_once_by_their_path(self, write, monkeypatch):
        monkeypatch.setenv("LYRA_GATE__MIN_ACCURACY", "2")
        file = write(
            "nli: {fast_modle: x, batch_size: none}\n"
            "training: {rank: 0, layers: -1, target_modules: []}\n"
            "trainning: {rank: 4}\n"
            "due: 5\n"
        )
        problems = problems_of(file)
        keys = sorted(problem.partition(":")[0] for problem in problems)
        assert keys == [
            "due",
            "gate.min_accuracy",
            "nli.batch_size",
            "nli.fast_modle",
            "training.layers",
            "training.rank",
            "training.target_modules",
            "trainning",
        ]
        assert any("training.rank" in problem and "(got 0)" in problem for problem in problems)

    def test_the_message_names_the_file(self, write):
        file = write("due: {min_samples: 0}\n")
        with pytest.raises(SettingsError, match=str(file)):
            load_settings(file)

    def test_wrong_options_are_named_by_their_path_all_at_once(self):
        problems = problems_of(
            overrides={"training": {"rank": 0, "epochs": 0}, "nli": {"batch_size": 0}}
        )
        keys = [problem.partition(":")[0] for problem in problems]
        assert keys == ["training.rank", "training.epochs", "nli.batch_size"]

    @pytest.mark.parametrize(
        ("section", "meant"),
        [("trainning", "training"), ("Nli", "nli"), ("ml-server", "ml_server"), ("gates", "gate")],
    )
    def test_a_misspelt_section_is_not_a_foreign_one(self, write, section, meant):
        (problem,) = problems_of(write(f"{section}: {{}}\n"))
        assert problem == f"{section}: unknown section; did you mean `{meant}`?"

    @pytest.mark.parametrize("value", ["[]", "0", "false", "''", "some text"])
    def test_a_section_that_holds_no_keys_is_wrong(self, write, value):
        (problem,) = problems_of(write(f"training: {value}\n"))
        assert problem.startswith("training: ")

    def test_text_for_a_whole_section_is_wrong(self, monkeypatch):
        monkeypatch.setenv("LYRA_NLI", "starter")
        (problem,) = problems_of()
        assert "nli" in problem
        assert "LYRA_SECTION__KEY" in problem

    @pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
    def test_no_number_is_a_wrong_number(self, write, value):
        (problem,) = problems_of(write(f"training: {{alpha: {value}}}\n"))
        assert problem.startswith("training.alpha: ")

    @pytest.mark.parametrize("value", ["[]", "[0.0, 1.0]", "[1.1]", "0.7", "[much]"])
    def test_strengths_are_shares_above_nothing(self, write, value):
        (problem,) = problems_of(write(f"training: {{strengths: {value}}}\n"))
        assert problem.startswith("training.strengths")

    @pytest.mark.parametrize("value", [-0.1, 1.1])
    def test_smoothing_is_a_share(self, write, value):
        (problem,) = problems_of(write(f"training: {{label_smoothing: {value}}}\n"))
        assert problem.startswith("training.label_smoothing: ")

    def test_a_split_that_leaves_nothing_to_learn_from_is_wrong(self, write):
        (problem,) = problems_of(write("dataset: {holdout_fraction: 0.6, dev_fraction: 0.4}\n"))
        assert problem.startswith("dataset: ")

    @pytest.mark.parametrize("value", [0, 1])
    def test_a_gate_needs_a_holdout_and_a_significance(self, write, value):
        file = write(f"dataset: {{holdout_fraction: {value}}}\ngate: {{significance: {value}}}\n")
        keys = [problem.partition(":")[0] for problem in problems_of(file)]
        assert keys == ["dataset.holdout_fraction", "gate.significance"]

    @pytest.mark.parametrize("text", ["a: [1,\n", "nli:\n\tx: 1\n", "a: &b *c\n"])
    def test_bad_yaml_is_refused_with_the_files_name(self, write, text):
        with pytest.raises(SettingsError, match=r"some\.yaml can't be read"):
            load_settings(write(text))

    def test_a_file_of_bytes_is_refused(self, tmp_path):
        (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SettingsError, match="can't be read"):
            load_settings(tmp_path / "x.yaml")

    def test_a_list_is_no_settings_file(self, write):
        with pytest.raises(SettingsError, match="must hold sections"):
            load_settings(write("- nli\n"))

    def test_a_named_file_must_exist(self, tmp_path):
        with pytest.raises(SettingsError, match="can't be read"):
            load_settings(tmp_path / "none.yaml")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().training.rank = 4


def test_the_pins_of_the_default_models_bind_no_other() -> None:
    defaults = NliSettings()
    assert defaults.revision_of(defaults.fast_model) == defaults.fast_revision
    assert defaults.revision_of(defaults.slow_model) == defaults.slow_revision
    other = NliSettings(fast_model="somebody/model")
    assert other.revision_of("somebody/model") is None
    pinned = NliSettings(fast_model="somebody/model", fast_revision="abc")
    assert pinned.revision_of("somebody/model") == "abc"
    assert defaults.revision_of("starter") is None


class TestRoutes:
    def test_sites_lead_to_versions(self, write, monkeypatch):
        file = write("nli: {routes: {example.co.uk: v3, localhost: base}}\n")
        assert load_settings(file).nli.routes == {"example.co.uk": "v3", "localhost": "base"}
        monkeypatch.setenv("LYRA_NLI__ROUTES", '{"example.org": "v4"}')
        assert load_settings().nli.routes == {"example.org": "v4"}

    def test_what_no_premise_could_come_from_is_refused(self):
        routes = {"www.example.org": "v1", "Example.net": "v1", "example.org": "v1"}
        (problem,) = problems_of(overrides={"nli": {"routes": routes}})
        assert "'www.example.org' is no site, example.org is" in problem
        assert "'Example.net' is no site, example.net is" in problem

    def test_all_routed_versions_fit_into_memory(self):
        routes = {f"site{n}.org": f"v{n % 6}" for n in range(20)}
        assert load_settings(None, {"nli": {"routes": routes, "resident_versions": 9}})
        few = {"routes": routes, "resident_versions": 8}
        (problem,) = problems_of(overrides={"nli": few})
        assert "resident_versions of 9" in problem


def test_a_token_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRA_ML_SERVER__ADMIN_TOKEN", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings(None)
    assert "ml_server.admin_token" in str(caught.value.problems)
    assert "hunter2" not in f"{caught.value}{caught.value.problems}"


@pytest.mark.parametrize(
    ("layers", "of_twelve", "of_six", "of_two"),
    [("third", 4, 2, 1), ("half", 6, 3, 1), ("all", 12, 6, 2), (5, 5, 5, 2)],
)
def test_layers_by_name_or_number(layers: object, of_twelve: int, of_six: int, of_two: int) -> None:
    recipe = TrainingSettings.model_validate({"layers": layers})
    assert [recipe.learning_layers(depth) for depth in (12, 6, 2)] == [of_twelve, of_six, of_two]
