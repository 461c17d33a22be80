"""An adapter's files: written as PEFT reads them, merged; and adapters that must not be served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import EVERYWHERE, PAIRS, logits, matched, trained

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.models.adapter import merged_model, read_adapter, save_adapter
from lyra_nli.models.base import Base, fingerprint, load_base
from lyra_nli.models.judge import Judge
from lyra_nli.models.lora import low_rank_layers
from lyra_nli.settings import TrainingSettings


@pytest.fixture
def adapter(deberta, tmp_path) -> Path:
    """A good adapter of the tiny DeBERTa; tests damage it."""
    folder = tmp_path / "adapter"
    recipe = TrainingSettings(rank=2, target_modules=("query", "value"), layers="all")
    folder.mkdir()
    save_adapter(deberta, trained(deberta, recipe), recipe, folder)
    return folder


class TestSaving:
    def test_plain_peft_gives_the_same_logits_as_the_merged_model(self, base, tmp_path):
        model = trained(base, EVERYWHERE)
        save_adapter(base, model, EVERYWHERE, tmp_path)

        fresh = load_base(base.name).model
        loaded = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
        merged = merged_model(base, read_adapter(base, tmp_path))

        np.testing.assert_allclose(logits(base, loaded), logits(base, model), atol=1e-5)
        np.testing.assert_allclose(logits(base, merged), logits(base, loaded), atol=1e-5)
        assert np.abs(logits(base, merged) - logits(base, base.model)).max() > 0.05

    def test_its_strength_is_part_of_alpha(self, base, tmp_path):
        model = trained(base, EVERYWHERE)
        whole = logits(base, model)
        save_adapter(base, model, EVERYWHERE, tmp_path, strength=0.5)
        for _, layer in low_rank_layers(model):
            layer.scale *= 0.5

        loaded = PeftModel.from_pretrained(load_base(base.name).model, str(tmp_path)).eval()
        merged = merged_model(base, read_adapter(base, tmp_path))

        assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 2.5
        np.testing.assert_allclose(logits(base, loaded), logits(base, model), atol=1e-5)
        np.testing.assert_allclose(logits(base, merged), logits(base, model), atol=1e-5)
        assert np.abs(logits(base, merged) - whole).max() > 0.05

    def test_only_the_adapters_are_written(self, deberta, tmp_path):
        save_adapter(deberta, trained(deberta, EVERYWHERE), EVERYWHERE, tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        assert all(".lora_A." in name or ".lora_B." in name for name in tensors)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}

    def test_the_same_weights_give_the_same_bytes(self, deberta, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            save_adapter(deberta, trained(deberta, EVERYWHERE), EVERYWHERE, tmp_path / name)
        for file in (tmp_path / "one").iterdir():
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()

    def test_the_config_names_the_base_as_the_user_does(self, deberta, tmp_path):
        """Not the folder of this machine that it was loaded from."""
        named = Base(**{**vars(deberta), "name": "starter"})
        save_adapter(named, trained(named, EVERYWHERE), EVERYWHERE, tmp_path)
        text = (tmp_path / "adapter_config.json").read_text()
        assert json.loads(text)["base_model_name_or_path"] == "starter"
        assert deberta.name not in text
        assert json.loads(text)["task_type"] is None

    def test_saving_never_asks_the_hub(self, deberta, tmp_path, monkeypatch):
        def asked(*_: object, **__: object) -> None:
            raise AssertionError("the Hub was asked")

        monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", asked)
        named = Base(**{**vars(deberta), "name": "somebody/some-model"})
        save_adapter(named, trained(named, EVERYWHERE), EVERYWHERE, tmp_path)


class TestMerging:
    def test_touched_matrices_are_new_and_all_else_is_shared(self, base, tmp_path):
        recipe = TrainingSettings(rank=2, target_modules=("query", "output"), layers=1)
        save_adapter(base, trained(base, recipe), recipe, tmp_path)
        touched = {f"{name}.weight" for name in matched(base, recipe)}

        merged = dict(merged_model(base, read_adapter(base, tmp_path)).state_dict())

        for name, tensor in base.model.state_dict().items():
            shared = merged[name].data_ptr() == tensor.data_ptr()
            assert shared is (name not in touched), name
        assert len(touched) == 2

    def test_the_bits_of_the_base_stay(self, base, tmp_path):
        save_adapter(base, trained(base, EVERYWHERE), EVERYWHERE, tmp_path)
        before = Judge(base).logits(PAIRS)
        merged = merged_model(base, read_adapter(base, tmp_path))
        assert np.abs(Judge(base, merged).logits(PAIRS) - before).max() > 0.05
        np.testing.assert_array_equal(Judge(base).logits(PAIRS), before)
        assert fingerprint(base.model) == base.fingerprint

    def test_the_merged_matrix_is_w_plus_scaled_b_a(self, deberta, tmp_path):
        save_adapter(deberta, trained(deberta, EVERYWHERE), EVERYWHERE, tmp_path)
        name = "deberta.encoder.layer.1.attention.self.value_proj"
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        a = tensors[f"base_model.model.{name}.lora_A.weight"].double()
        b = tensors[f"base_model.model.{name}.lora_B.weight"].double()
        weight = deberta.model.get_submodule(name).weight.double()
        merged = merged_model(deberta, read_adapter(deberta, tmp_path)).get_submodule(name).weight
        torch.testing.assert_close(merged, (weight + 5 / 3 * b @ a).float())
        assert merged.dtype == torch.float32
        assert not merged.requires_grad

    def test_two_adapters_stand_beside_each_other(self, deberta, tmp_path):
        folders = [tmp_path / "one", tmp_path / "two"]
        for seed, folder in enumerate(folders):
            folder.mkdir()
            save_adapter(deberta, trained(deberta, EVERYWHERE, seed=seed), EVERYWHERE, folder)
        one, two = (merged_model(deberta, read_adapter(deberta, folder)) for folder in folders)
        first = logits(deberta, one)
        assert np.abs(first - logits(deberta, two)).max() > 0.05
        np.testing.assert_array_equal(logits(deberta, one), first)

    def test_target_modules_may_be_a_list_of_suffixes(self, deberta, adapter):
        expected = logits(deberta, merged_model(deberta, read_adapter(deberta, adapter)))
        set_config(adapter, target_modules=["query_proj", "value_proj"])
        np.testing.assert_array_equal(
            logits(deberta, merged_model(deberta, read_adapter(deberta, adapter))), expected
        )


def set_config(folder: Path, **values: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def set_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def refusal(base: Base, folder: Path) -> AdapterInvalidError:
    with pytest.raises(AdapterInvalidError) as caught:
        merged_model(base, read_adapter(base, folder))
    return caught.value


class TestBadAdapters:
    def test_tensors_missing_extra_misshapen_and_not_finite_are_all_named(self, deberta, adapter):
        query = "base_model.model.deberta.encoder.layer.{}.attention.self.query_proj.lora_{}.weight"

        def damage(tensors):
            del tensors[query.format(0, "A")]
            tensors["base_model.model.classifier.weight"] = torch.zeros(3, 32)
            tensors[query.format(0, "B")] = torch.zeros(2, 32)
            tensors[query.format(1, "A")][0, 0] = float("nan")
            tensors[query.format(1, "B")][0, 0] = float("inf")

        set_tensors(adapter, damage)
        error = refusal(deberta, adapter)
        assert set(error.problems) == {
            f"{query.format(0, 'A')}: missing",
            "base_model.model.classifier.weight: not expected",
            f"{query.format(0, 'B')}: shape (2, 32), expected (32, 2)",
            f"{query.format(1, 'A')}: holds NaN or infinite values",
            f"{query.format(1, 'B')}: holds NaN or infinite values",
        }
        assert deberta.name in error.message

    def test_an_adapter_of_another_architecture(self, bases, adapter):
        error = refusal(bases["bert"], adapter)
        assert "target_modules match nothing in the base model" in error.problems
        assert sum("not expected" in problem for problem in error.problems) == 8

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
    def test_a_missing_file(self, deberta, adapter, name):
        (adapter / name).unlink()
        assert name in refusal(deberta, adapter).message

    def test_a_pickle_is_never_read(self, deberta, adapter):
        tensors = load_file(adapter / "adapter_model.safetensors")
        (adapter / "adapter_model.safetensors").unlink()
        torch.save(tensors, adapter / "adapter_model.bin")
        assert "safetensors" in refusal(deberta, adapter).hint

        shutil.copy(adapter / "adapter_model.bin", adapter / "adapter_model.safetensors")
        assert "pickles never are" in refusal(deberta, adapter).hint

    def test_a_cut_file(self, deberta, adapter):
        file = adapter / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
        assert "can't be read" in refusal(deberta, adapter).message

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ufeff"])
    def test_a_config_that_is_no_object(self, deberta, adapter, text):
        (adapter / "adapter_config.json").write_text(text, "utf-8")
        assert "adapter_config.json" in refusal(deberta, adapter).message

    def test_every_wrong_key_of_the_config_is_named_at_once(self, deberta, adapter):
        set_config(
            adapter,
            peft_type="LOHA",
            bias="all",
            use_dora=True,
            use_rslora=True,
            modules_to_save=["classifier"],
            rank_pattern={"query_proj": 4},
            alpha_pattern={"query_proj": 4},
            r=0,
            lora_alpha=float("nan"),
            target_modules="(",
            init_lora_weights="pissa",
        )
        named = {problem.split()[0] for problem in refusal(deberta, adapter).problems}
        assert named == {
            "peft_type",
            "bias",
            "use_dora",
            "use_rslora",
            "modules_to_save",
            "rank_pattern",
            "alpha_pattern",
            "r",
            "lora_alpha",
            "target_modules",
            "init_lora_weights",
        }

    @pytest.mark.parametrize(
        "wrong",
        [
            {"use_dora": True},
            {"modules_to_save": ["classifier", "score"]},
            {"peft_type": "IA3"},
            {"peft_type": None},
            {"r": "8"},
            {"r": 2.0},
            {"r": True},
            {"r": -1},
            {"lora_alpha": None},
            {"lora_alpha": float("inf")},
            {"target_modules": None},
            {"lora_bias": True},
            {"use_qalora": True},
            {"alora_invocation_tokens": [1]},
            {"init_lora_weights": "olora"},
        ],
        ids=lambda wrong: "-".join(f"{key}={value}" for key, value in wrong.items()),
    )
    def test_one_wrong_key_is_enough(self, deberta, adapter, wrong):
        read_adapter(deberta, adapter)  # good before
        set_config(adapter, **wrong)
        (problem,) = refusal(deberta, adapter).problems
        assert problem.startswith(next(iter(wrong)))

    def test_a_rank_that_is_not_the_files(self, deberta, adapter):
        set_config(adapter, r=4)
        problems = refusal(deberta, adapter).problems
        assert len(problems) == 8
        assert all("shape" in problem for problem in problems)
