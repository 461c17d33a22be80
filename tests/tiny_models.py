"""Tiny random classifiers of each supported architecture, as local model folders."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

ID2LABEL = {0: "contradiction", 1: "entailment", 2: "neutral"}

_TEXT = [
    "the drug lowers the risk of stroke in adults with diabetes",
    "a man is eating food at the table and the dog sleeps outside",
    "no significant difference between groups was found in this trial",
    "it does not raise mortality but it may cause nausea and headache",
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,%"
_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
_SPECIAL_OF_ROBERTA = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]


def make_tiny_model(
    folder: Path,
    architecture: str = "deberta-v2",
    *,
    id2label: dict[int, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write a random two-layer classifier (hidden 32) with a tokenizer of a few words."""
    tokenizer = _tokenizer(architecture)
    names = id2label or ID2LABEL
    shared = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 130 if architecture == "roberta" else 128,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    if architecture == "bert":
        model = BertForSequenceClassification(BertConfig(type_vocab_size=2, **shared))
    elif architecture == "roberta":
        model = RobertaForSequenceClassification(RobertaConfig(type_vocab_size=1, **shared))
    else:
        config = DebertaV2Config(
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            pooler_hidden_size=32,
            **shared,
        )
        model = DebertaV2ForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    """Whole words of the texts above, all else by letters. Not trained: training varies."""
    words = sorted(set(" ".join(_TEXT).split()))
    pieces = [piece for letter in _LETTERS for piece in (letter, f"##{letter}")]
    special = _SPECIAL_OF_ROBERTA if architecture == "roberta" else _SPECIAL
    pad, start, end, unknown, mask = special
    tokens = dict.fromkeys([*special, *words, *pieces])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, 1), (end, 2)],
    )
    segments = ["token_type_ids"] if architecture == "bert" else []
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        cls_token=start,
        sep_token=end,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask", *segments],
    )
