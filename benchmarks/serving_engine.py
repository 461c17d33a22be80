"""One forward pass of the engine beside transformers and ONNX Runtime, of `serving`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from onnx_serving import exported
from serving_tools import Ground, Target, in_turn, mixed, precisions

from lyra_nli.models.base import Base
from lyra_nli.models.encoding import EncodedPair, by_length, collate, encode
from lyra_nli.models.engine import Engine, engine_of
from lyra_nli.models.linear import FrozenLinear
from lyra_nli.models.pages import enlarge
from lyra_nli.settings import ServerSettings

Rows = Sequence[EncodedPair]


def latency(ground: Ground) -> list[Target]:
    """One pair of about 32 and of about 128 tokens, and 32 of 20 to 200."""
    base = ground.base
    rows = encode(base, mixed(ground.pairs))
    near = {n: min(rows, key=lambda row: abs(len(row) - n)) for n in (32, 128)}
    some = random.Random(1).sample([row for row in rows if 20 <= len(row) <= 200], 32)
    engines = {name: engine_of(base, dtype) for name, dtype in precisions().items()}
    onnx, int8 = (exported(base, ground.threads, int8=narrow) for narrow in (False, True))
    columns = "".join(f" ours, {name} | | its products |" for name in engines)
    print(
        f"\n| pairs | transformers | ONNX Runtime | its int8 |{columns}\n"
        f"{'|---' * (4 + 3 * len(engines))}|"
    )
    short: dict[str, float] = {}
    for name, batch in (
        (f"1 of {len(near[32])} tokens", [near[32]]),
        (f"1 of {len(near[128])} tokens", [near[128]]),
        (f"32 of {min(map(len, some))} to {max(map(len, some))} tokens", some),
    ):
        ways: dict[str, Callable[[], object]] = {
            "transformers": partial(transformers_logits, base, batch),
            "onnx": partial(onnx, collate(base, batch)),
            "int8": partial(int8, collate(base, batch)),
            **{kind: partial(ours, engine, batch) for kind, engine in engines.items()},
            **{
                f"products, {kind}": products(base, dtype, sum(map(len, batch)))
                for kind, dtype in precisions().items()
            },
        }
        ms = in_turn(ways, ground.repeat if len(batch) == 1 else -(-ground.repeat // 4))
        short = short or ms
        cells = [
            f"{ms[kind]:.1f} | {ms['transformers'] / ms[kind]:.1f}x, {ms['onnx'] / ms[kind]:.1f}x"
            f" | {ms[f'products, {kind}']:.1f}"
            for kind in engines
        ]
        peers = " | ".join(f"{ms[kind]:.1f}" for kind in ("transformers", "onnx", "int8"))
        print(f"| {name} | {peers} | {' | '.join(cells)} |")
    print(
        "\nmilliseconds; how often faster than transformers and than ONNX Runtime, both float32;"
        "\nwhat would be left if all but the matrix products cost nothing"
    )
    return faster(short)


def faster(ms: Mapping[str, float]) -> list[Target]:
    """What one short pair takes, against what it should."""
    wanted = {
        ("bf16", "transformers"): 6.0,
        ("bf16", "onnx"): 1.5,
        ("fp32", "transformers"): 3.5,
        ("fp32", "onnx"): 1.0,
    }
    targets = []
    for (kind, peer), factor in wanted.items():
        over = ms[peer] / ms[kind] if kind in ms else None
        targets.append(
            Target(
                f"one short pair, {kind}: {factor:g}x {peer} fp32",
                f"{over:.1f}x" if over else "no bf16",
                over >= factor if over else None,
            )
        )
    return targets


def precision(ground: Ground) -> list[Target]:
    """Answers of both precisions, and of ONNX Runtime's int8, against transformers' float32."""
    base = ground.base
    int8 = exported(base, ground.threads, int8=True)
    ways: dict[str, Callable[[Rows], torch.Tensor]] = {
        **{name: partial(ours, engine_of(base, dtype)) for name, dtype in precisions().items()},
        "ONNX Runtime, int8": lambda rows: torch.from_numpy(int8(collate(base, rows))),
    }
    rows = encode(base, ground.pairs)
    batches = list(by_length([len(row) for row in rows], 32))

    def all_of(way: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        said = torch.empty(len(rows), 3)
        for positions in batches:
            said[positions] = way([rows[i] for i in positions])
        return said

    expected = all_of(partial(transformers_logits, base))
    print(f"\n| {len(rows)} pairs | same label | largest gap, probability | logit |")
    print("|---|---|---|---|")
    found = {}
    for name, way in ways.items():
        got = all_of(way)
        same = (got.argmax(1) == expected.argmax(1)).float().mean().item()
        apart = (got.softmax(1) - expected.softmax(1)).abs().max().item()
        found[name] = (same, apart)
        print(f"| {name} | {same:.2%} | {apart:.1e} | {(got - expected).abs().max():.1e} |")
    same, apart = found.get("bf16", (0.0, 0.0))
    known = "bf16" in found
    return [
        Target(
            f"bf16 on {len(rows)} pairs: 99.9% of the labels, probabilities within 0.01",
            f"{same:.2%}, {apart:.4f}" if known else "no bf16",
            same >= 0.999 and apart <= 0.01 if known else None,
        )
    ]


def transformers_logits(base: Base, rows: Rows) -> torch.Tensor:
    """One padded batch through transformers' own forward pass."""
    with torch.inference_mode():
        logits: torch.Tensor = base.model(**collate(base, rows)).logits
    return logits


def ours(engine: Engine, rows: Rows, variants: Sequence[Any] = ()) -> torch.Tensor:
    """One batch through the engine."""
    return engine.logits(rows, variants or [None] * len(rows))


def products(base: Base, dtype: torch.dtype, tokens: int) -> Callable[[], None]:
    """The products of so many tokens with weights like the encoder's, and nothing else.

    In batches and precisions as the engine has them, and of the last layer only what it needs:
    this is left of a judgement when all else costs nothing.
    """
    config: Any = base.model.config
    size, inner = config.hidden_size, config.intermediate_size
    shapes = [
        (3 * size, size, torch.float32),
        *((size, size, dtype), (inner, size, dtype), (size, inner, dtype)),
    ]
    every = shapes * (config.num_hidden_layers - 1) + shapes[:1]
    weights = [
        (FrozenLinear(torch.randn(wide, deep), torch.zeros(wide), kind), (deep, kind))
        for wide, deep, kind in every
    ]
    enlarge(product.weight for product, _ in weights)
    rows = ServerSettings().batch_tokens
    inputs = {(deep, kind): torch.randn(rows, deep).to(kind) for _, deep, kind in shapes}

    def multiply() -> None:
        with torch.inference_mode():
            for start in range(0, tokens, rows):
                for product, kind in weights:
                    product(inputs[kind][: tokens - start])

    return multiply
