"""Throughput: pairs of mixed length, by sentence-transformers and by ours, of `serving`."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx_serving import exported
from sentence_transformers import CrossEncoder
from serving_engine import products
from serving_processes import Apart
from serving_tools import Ground, Target, in_turn, mixed, of_length, precisions
from transformers.modeling_outputs import SequenceClassifierOutput

from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models import starter
from lyra_nli.models.base import load_base
from lyra_nli.models.encoding import encode
from lyra_nli.records import Pair
from lyra_nli.settings import Settings

COUNT = 384
CROSS_ENCODER, ONNX = "CrossEncoder.predict", "the same over ONNX Runtime"

Way = Callable[[], list[int]]
"""Gives the class of each pair, in the model's own order."""


def throughput(ground: Ground) -> list[Target]:
    """Texts in, probabilities out, as each is used: predict in batches of 32, and our service."""
    threads, some = ground.threads, of_length(ground.base, mixed(ground.pairs), COUNT, seed=3)
    tokens = sum(map(len, encode(ground.base, some)))
    ways = {
        CROSS_ENCODER: Apart(predicting, some, threads),
        ONNX: Apart(predicting_by_onnx, some, threads),
        **{f"ours, {name}": Apart(judging, some, threads, name) for name in precisions()},
        **{
            f"nothing but the matrix products, {name}": Apart(multiplying, dtype, tokens, threads)
            for name, dtype in precisions().items()
        },
    }
    ours = [name for name in ways if name.startswith("ours")]
    ms = in_turn(ways, -(-ground.repeat // 5))
    check({name: ways[name]() for name in (CROSS_ENCODER, ONNX, *ours)})
    for way in ways.values():
        way.end()
    print(f"\n| {COUNT} pairs of 20 to 200 tokens | seconds | pairs a second | faster | |")
    print("|---|---|---|---|---|")
    for name, each in ms.items():
        faster = " | ".join(f"{ms[peer] / each:.1f}x" for peer in (CROSS_ENCODER, ONNX))
        print(f"| {name} | {each / 1000:.2f} | {1000 * COUNT / each:.1f} | {faster} |")
    print("\nfaster than CrossEncoder.predict, and than the same over ONNX Runtime")
    best = min(ms[name] for name in ours)
    return [
        Target(
            f"mixed lengths: {factor:g}x {peer}",
            f"{ms[peer] / best:.1f}x",
            ms[peer] >= factor * best,
        )
        for peer, factor in ((CROSS_ENCODER, 4.0), (ONNX, 1.7))
    ]


def predicting(pairs: Sequence[Pair], threads: int) -> Way:
    """sentence-transformers, float32; the class of the highest logit."""
    torch.set_num_threads(threads)
    return predict(cross_encoder(), pairs)


def predicting_by_onnx(pairs: Sequence[Pair], threads: int) -> Way:
    """The same over ONNX Runtime."""
    model = cross_encoder()
    model.transformers_model.forward = onnx_forward(exported(load_base("starter"), threads))
    return predict(model, pairs)


def predict(model: CrossEncoder, pairs: Sequence[Pair]) -> Way:
    """As its users call it."""
    texts = [(pair.premise, pair.hypothesis) for pair in pairs]
    return lambda: model.predict(texts, batch_size=32).argmax(1).tolist()


def judging(pairs: Sequence[Pair], threads: int, precision: str) -> Way:
    """A service as the server runs it, without a registry."""
    torch.set_num_threads(1)
    settings = {
        "storage": {"database_path": "nowhere.db"},
        "nli": {"fast_model": "starter", "precision": precision},
        "ml_server": {"threads": threads},
        "monitoring": {"log_share": 0.0},
    }
    runner, service = asyncio.Runner(), NLIService(Settings.model_validate(settings))
    runner.run(service.start())
    labels = load_base("starter").labels
    classes = dict(zip(labels.raw_names, labels.order, strict=True))

    def judge() -> list[int]:
        return [classes[said.raw_label] for said in runner.run(service.judge(pairs)).judgements]

    return judge


def multiplying(dtype: torch.dtype, tokens: int, threads: int) -> Callable[[], None]:
    """The products alone."""
    torch.set_num_threads(threads)
    return products(load_base("starter"), dtype, tokens)


def cross_encoder() -> CrossEncoder:
    """The starter in sentence-transformers, float32."""
    return CrossEncoder(str(starter.materialise()), device="cpu", max_length=512)


def onnx_forward(
    judge: Callable[[Mapping[str, torch.Tensor]], Any],
) -> Callable[..., SequenceClassifierOutput]:
    """What CrossEncoder's ONNX backend puts in the place of the model's forward pass.

    The backend itself needs optimum-onnx, which needs an older transformers than ours.
    """

    def forward(**batch: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=torch.from_numpy(judge(batch)))

    return forward


async def started(precision: str, threads: int) -> NLIService:
    """A service as the server runs it, without a registry."""
    settings = {
        "storage": {"database_path": "nowhere.db"},
        "nli": {"fast_model": "starter", "precision": precision},
        "ml_server": {"threads": threads},
        "monitoring": {"log_share": 0.0},
    }
    service = NLIService(Settings.model_validate(settings))
    await service.start()
    return service


def check(said: Mapping[str, Sequence[int]]) -> None:
    """How often each gives the label of the first, so that they may be compared."""
    expected = said[CROSS_ENCODER]
    same = {
        name: statistics.mean(a == b for a, b in zip(each, expected, strict=True))
        for name, each in said.items()
    }
    shown = ", ".join(f"{name} {share:.2%}" for name, share in same.items())
    print(f"\nthe label of {CROSS_ENCODER}: {shown}")
