"""LoRA placement, attaching, saving, merging; and adapters that must not be served."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from lyra_nli.errors import AdapterInvalidError, ModelError
from lyra_nli.models.base import Base, fingerprint, load_base
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.judge import Judge
from lyra_nli.models.lora import adapted_model, attach, read_adapter, save_adapter, target_pattern
from lyra_nli.records import Pair
from lyra_nli.settings import TrainingSettings

PAIRS = [
    Pair("the drug lowers the risk of stroke", "the drug works"),
    Pair("no significant difference was found", "it lowers mortality"),
    Pair("a man is eating", "the dog sleeps " * 5),
]
EVERYWHERE = TrainingSettings(rank=3, alpha=5, target_modules=("all",))
ATTENTION = ("query", "key", "value", "attention_output")
LAYER = {
    "deberta-v2": "deberta.encoder.layer.{}.attention.self.query_proj",
    "bert": "bert.encoder.layer.{}.attention.self.query",
    "roberta": "roberta.encoder.layer.{}.attention.self.query",
}


def matched(base: Base, recipe: TrainingSettings) -> set[str]:
    pattern = target_pattern(base, recipe)
    return {name for name, _ in base.model.named_modules() if re.fullmatch(pattern, name)}


def trained(base: Base, recipe: TrainingSettings, seed: int = 0) -> PeftModel:
    """Adapters with weights as if they had been trained: B is not zero any more."""
    torch.manual_seed(seed)
    model = attach(base, recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def logits(base: Base, model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model(**collate(base, encode(base, PAIRS))).logits.numpy()


@pytest.fixture
def adapter(deberta, tmp_path) -> Path:
    """A good adapter of the tiny DeBERTa; tests damage it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(trained(deberta, TrainingSettings(rank=2)), folder)
    return folder


class TestPlacement:
    def test_the_default_is_query_and_value_in_every_layer(self, bases):
        found = matched(bases["deberta-v2"], TrainingSettings())
        assert found == {
            f"deberta.encoder.layer.{layer}.attention.self.{name}_proj"
            for layer in (0, 1)
            for name in ("query", "value")
        }

    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    def test_bert_and_roberta_have_their_own_names(self, bases, architecture):
        recipe = TrainingSettings(target_modules=(*ATTENTION, "intermediate", "output"), layers=1)
        assert matched(bases[architecture], recipe) == {
            f"{architecture}.encoder.layer.1.{name}"
            for name in (
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            )
        }

    def test_all_means_every_linear_of_the_encoder_and_no_other(self, base):
        linears = {
            name
            for name, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        found = matched(base, EVERYWHERE)
        assert found == {name for name in linears if ".encoder.layer." in name}
        assert {name for name in linears - found if "pooler" in name or "classifier" in name}

    @pytest.mark.parametrize(("layers", "places"), [(1, [1]), (2, [0, 1]), (99, [0, 1])])
    def test_layers_counts_from_the_top(self, bases, layers, places):
        for architecture, base in bases.items():
            recipe = TrainingSettings(target_modules=("query",), layers=layers)
            assert matched(base, recipe) == {LAYER[architecture].format(i) for i in places}

    def test_unknown_names_are_listed_with_what_exists(self, base):
        recipe = TrainingSettings(target_modules=("query", "query_proj", "dense"))
        with pytest.raises(ModelError) as caught:
            target_pattern(base, recipe)
        assert "query_proj, dense" in caught.value.message
        for name in (*ATTENTION, "intermediate", "output"):
            assert name in caught.value.hint

    def test_an_unknown_architecture_is_refused(self, deberta, tmp_path):
        other = load_base(str(shutil.copytree(deberta.name, tmp_path / "m")))
        other.model.config.model_type = "albert"
        with pytest.raises(ModelError, match="albert") as caught:
            target_pattern(other, TrainingSettings())
        assert "bert, deberta-v2, roberta" in caught.value.hint

    @pytest.mark.parametrize("wrong", [{"layers": 0}, {"target_modules": ()}])
    def test_a_recipe_that_adapts_nothing_is_refused(self, wrong):
        with pytest.raises(ValidationError):
            TrainingSettings(**wrong)


class TestAttach:
    def test_only_the_adapters_train(self, base):
        model = attach(base, EVERYWHERE)
        open_ = {name for name, p in model.named_parameters() if p.requires_grad}
        assert open_ == {name for name, _ in model.named_parameters() if "lora_" in name}
        assert len(open_) == 2 * len(matched(base, EVERYWHERE))

    def test_a_fresh_adapter_changes_no_answer(self, base):
        np.testing.assert_array_equal(
            logits(base, attach(base, EVERYWHERE).eval()), logits(base, base.model)
        )

    def test_the_base_stays_as_it_is_whatever_happens_to_the_copy(self, base):
        before = logits(base, base.model)
        model = trained(base, EVERYWHERE)
        model.train()
        model.to(torch.float64)  # as `.to("cuda")`: moves parameters in place
        np.testing.assert_array_equal(logits(base, base.model), before)
        assert fingerprint(base.model) == base.fingerprint
        assert {p.dtype for p in base.model.parameters()} == {torch.float32}
        assert not any(module.training for module in base.model.modules())
        assert not any("lora" in name for name, _ in base.model.named_modules())

    def test_frozen_matrices_take_the_wanted_type_and_adapters_stay_float32(self, deberta):
        model = attach(deberta, EVERYWHERE, torch.bfloat16)
        types = {
            ("lora" if "lora_" in name else "matrix" if ".base_layer.weight" in name else "rest"): (
                parameter.dtype
            )
            for name, parameter in model.named_parameters()
        }
        assert types == {
            "lora": torch.float32,
            "matrix": torch.bfloat16,
            "rest": torch.float32,
        }


class TestSaving:
    def test_plain_peft_gives_the_same_logits_as_the_merged_model(self, base, tmp_path):
        model = trained(base, EVERYWHERE)
        save_adapter(model, tmp_path)

        fresh = load_base(base.name).model
        loaded = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
        merged = adapted_model(base, tmp_path)

        np.testing.assert_allclose(logits(base, loaded), logits(base, model), atol=1e-6)
        np.testing.assert_allclose(logits(base, merged), logits(base, loaded), atol=1e-5)
        assert np.abs(logits(base, merged) - logits(base, base.model)).max() > 0.05

    def test_only_the_adapters_are_written(self, deberta, tmp_path):
        save_adapter(trained(deberta, EVERYWHERE), tmp_path)
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
            save_adapter(trained(deberta, EVERYWHERE), tmp_path / name)
        for file in (tmp_path / "one").iterdir():
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()

    def test_the_config_names_the_base_as_the_user_does(self, deberta, tmp_path):
        """Not the folder of this machine that it was loaded from."""
        named = Base(**{**vars(deberta), "name": "starter"})
        save_adapter(trained(named, EVERYWHERE), tmp_path)
        text = (tmp_path / "adapter_config.json").read_text()
        assert json.loads(text)["base_model_name_or_path"] == "starter"
        assert deberta.name not in text
        assert json.loads(text)["task_type"] is None

    def test_saving_never_asks_the_hub(self, deberta, tmp_path, monkeypatch):
        def asked(*_: object, **__: object) -> None:
            raise AssertionError("the Hub was asked")

        monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", asked)
        named = Base(**{**vars(deberta), "name": "somebody/some-model"})
        save_adapter(trained(named, EVERYWHERE), tmp_path)


class TestMerging:
    def test_touched_matrices_are_new_and_all_else_is_shared(self, base, tmp_path):
        recipe = TrainingSettings(rank=2, target_modules=("query", "output"), layers=1)
        save_adapter(trained(base, recipe), tmp_path)
        touched = {f"{name}.weight" for name in matched(base, recipe)}

        merged = dict(adapted_model(base, tmp_path).state_dict())

        for name, tensor in base.model.state_dict().items():
            shared = merged[name].data_ptr() == tensor.data_ptr()
            assert shared is (name not in touched), name
        assert len(touched) == 2

    def test_the_bits_of_the_base_stay(self, base, tmp_path):
        save_adapter(trained(base, EVERYWHERE), tmp_path)
        before = Judge(base).logits(PAIRS)
        merged = adapted_model(base, tmp_path)
        assert np.abs(Judge(base, merged).logits(PAIRS) - before).max() > 0.05
        np.testing.assert_array_equal(Judge(base).logits(PAIRS), before)
        assert fingerprint(base.model) == base.fingerprint

    def test_the_merged_matrix_is_w_plus_scaled_b_a(self, deberta, tmp_path):
        save_adapter(trained(deberta, EVERYWHERE), tmp_path)
        name = "deberta.encoder.layer.1.attention.self.value_proj"
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        a = tensors[f"base_model.model.{name}.lora_A.weight"].double()
        b = tensors[f"base_model.model.{name}.lora_B.weight"].double()
        weight = deberta.model.get_submodule(name).weight.double()
        merged = adapted_model(deberta, tmp_path).get_submodule(name).weight
        torch.testing.assert_close(merged, (weight + 5 / 3 * b @ a).float())
        assert merged.dtype == torch.float32
        assert not merged.requires_grad

    def test_two_adapters_stand_beside_each_other(self, deberta, tmp_path):
        folders = [tmp_path / "one", tmp_path / "two"]
        for seed, folder in enumerate(folders):
            folder.mkdir()
            save_adapter(trained(deberta, EVERYWHERE, seed=seed), folder)
        one, two = (adapted_model(deberta, folder) for folder in folders)
        first = logits(deberta, one)
        assert np.abs(first - logits(deberta, two)).max() > 0.05
        np.testing.assert_array_equal(logits(deberta, one), first)

    def test_target_modules_may_be_a_list_of_suffixes(self, deberta, adapter):
        expected = logits(deberta, adapted_model(deberta, adapter))
        set_config(adapter, target_modules=["query_proj", "value_proj"])
        np.testing.assert_array_equal(logits(deberta, adapted_model(deberta, adapter)), expected)


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
        adapted_model(base, folder)
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
