"""Loading a base model: what is accepted, and what is said about the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_model

from lyra_nli.errors import ModelError
from lyra_nli.models import starter
from lyra_nli.models.base import fingerprint, load_base


@pytest.fixture
def folder(deberta, tmp_path) -> Path:
    """A copy of the tiny DeBERTa that a test may damage."""
    return Path(shutil.copytree(deberta.name, tmp_path / "model"))


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


class TestLoading:
    def test_a_base_is_frozen_in_float32_and_in_eval_mode(self, base):
        assert not any(module.training for module in base.model.modules())
        for parameter in base.model.parameters():
            assert parameter.dtype == torch.float32
            assert not parameter.requires_grad

    def test_labels_are_found_where_the_model_keeps_them(self, base):
        assert base.labels.order == (1, 0, 2)
        assert base.labels.raw_names == ("entailment", "contradiction", "neutral")

    def test_half_precision_weights_are_widened(self, folder):
        change_weights(folder, lambda t: t.update({k: v.half() for k, v in t.items()}))
        change_config(folder, dtype="float16")
        assert {p.dtype for p in load_base(str(folder)).model.parameters()} == {torch.float32}

    def test_the_window_is_the_smaller_of_the_models_and_the_settings(self, base):
        assert base.max_length == 128  # 512 was asked for
        assert load_base(base.name, max_length=64).max_length == 64

    def test_a_folder_has_no_revision(self, deberta):
        assert load_base(deberta.name, revision="abc").revision is None

    def test_the_longest_pair_fits_the_models_positions(self, base):
        ids = torch.full((1, base.max_length), 10)
        with torch.inference_mode():
            assert base.model(input_ids=ids).logits.isfinite().all()


class TestFingerprint:
    def test_is_the_same_in_another_folder(self, deberta, folder):
        assert load_base(str(folder)).fingerprint == deberta.fingerprint
        assert len(deberta.fingerprint) == 64

    def test_is_the_same_when_a_default_is_spelt_out_or_left_out(self, deberta, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["hidden_act"] == "gelu"
        del config["hidden_act"]
        (folder / "config.json").write_text(json.dumps({**config, "chunk_size_feed_forward": 0}))
        assert load_base(str(folder)).fingerprint == deberta.fingerprint

    @pytest.mark.parametrize(
        "values",
        [
            {"layer_norm_eps": 1e-5},
            {"hidden_act": "relu"},
            {"id2label": {"0": "entailment", "1": "contradiction", "2": "neutral"}},
        ],
        ids=lambda values: next(iter(values)),
    )
    def test_changes_with_the_configuration(self, deberta, folder, values):
        change_config(folder, **values)
        assert load_base(str(folder)).fingerprint != deberta.fingerprint

    def test_changes_with_a_single_weight(self, deberta, folder):
        change_weights(folder, lambda t: t["classifier.bias"][0].add_(1e-3))
        assert load_base(str(folder)).fingerprint != deberta.fingerprint

    def test_differs_between_architectures(self, bases):
        assert len({base.fingerprint for base in bases.values()}) == len(bases)

    def test_can_be_taken_again(self, base):
        assert fingerprint(base.model) == base.fingerprint


class TestRefusals:
    def test_a_model_without_a_trained_classifier(self, folder):
        change_weights(folder, lambda t: [t.pop(k) for k in list(t) if "classifier" in k])
        with pytest.raises(ModelError, match="not a trained classifier") as caught:
            load_base(str(folder))
        assert caught.value.problems == ("classifier.bias", "classifier.weight")

    @pytest.mark.parametrize(
        "names",
        [{0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, {0: "not_entailment", 1: "entailment"}],
        ids=["nameless", "binary"],
    )
    def test_labels_that_cannot_be_mapped(self, tmp_path, names):
        make_tiny_model(tmp_path, id2label=names)
        with pytest.raises(ModelError, match="can't be mapped"):
            load_base(str(tmp_path))

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError, match=r"config\.json is missing"):
            load_base(str(tmp_path))

    @pytest.mark.parametrize("name", ["/no/such/folder", "./models/x", "~/model", "word", "a/b/c"])
    def test_a_name_that_is_neither_folder_nor_hub_id(self, name):
        with pytest.raises(ModelError, match="there is no model folder at"):
            load_base(name)

    def test_an_unreachable_hub_id_names_three_ways_out(self, monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(ModelError, match="'nobody/nli-model' can't be loaded") as caught:
            load_base("nobody/nli-model", revision="0" * 40)
        error = caught.value
        assert "\n" not in error.message
        assert error.hint.startswith("Three ways out: ")
        for way in ("connect once", "HF_HUB_OFFLINE", "LYRA_NLI__FAST_MODEL", "`starter`"):
            assert way in error.hint

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "model.safetensors").unlink(),
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x02 a pickle"),
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:-100]
            ),
            lambda folder: (folder / "config.json").write_text("{"),
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            lambda folder: change_config(folder, model_type="of-the-future"),
            lambda folder: change_config(folder, hidden_size=64),
        ],
        ids=["none", "pickle", "cut", "config", "tokenizer", "architecture", "shapes"],
    )
    def test_damaged_files(self, folder, damage):
        damage(folder)
        with pytest.raises(ModelError, match="can't be loaded: "):
            load_base(str(folder))

    @pytest.mark.parametrize("architecture", ["deberta-v2", "bert", "roberta"])
    def test_a_model_without_its_tokenizer(self, bases, tmp_path, architecture):
        folder = shutil.copytree(bases[architecture].name, tmp_path / "model")
        for file in folder.glob("tokenizer*"):
            file.unlink()
        with pytest.raises(ModelError, match="no tokenizer of its own"):
            load_base(str(folder))

    def test_a_cache_that_cannot_be_written(self, deberta, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("LYRA_NLI_CACHE", str(tmp_path / "file" / "cache"))
        monkeypatch.setattr(starter, "ADAPTER", tmp_path / "adapter.safetensors")
        save_file({}, starter.ADAPTER)
        monkeypatch.setattr(starter, "backbone", lambda classes: deberta.model)
        with pytest.raises(ModelError, match="can't be put into") as caught:
            load_base("starter")
        assert "LYRA_NLI_CACHE" in caught.value.hint
