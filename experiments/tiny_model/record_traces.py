"""Record the traces that SpecMD ships, from the tiny model: every file of `traces/` with its table.

    python experiments/tiny_model/record_traces.py

Text is sampled (temperature 0.8, a fixed seed a file), because a model this small repeats itself
when decoded greedily, and a loop has a locality no text has. One torch thread and fp32: the same
versions on the same kind of processor write the same files.
"""

# ruff: noqa: T201 - progress of a long run goes to the terminal
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from specmd.models.tiny import load_tiny
from specmd.recording import Prompt, read_prompts, record_model
from specmd.recording.recorder import Logits
from specmd.trace import DECODE, Trace

FOLDER = Path(__file__).resolve().parents[2] / "traces"
DOMAINS = ("code", "docs", "jargon", "math", "prose")


@dataclass(frozen=True)
class Recording:
    """One file: which prompts, how many together, how long, and what is recorded."""

    name: str
    domains: tuple[str, ...]
    a_domain: int  # prompts of each domain
    batch: int
    new_tokens: int
    lookahead: int = 1
    prompt_tokens: int | None = None  # cut prompts to so many
    logits: Logits = "top"

    def prompts(self) -> list[Prompt]:
        """Return the prompts, the domains in turn, so that a batch mixes them."""
        groups = [read_prompts(domain=domain)[: self.a_domain] for domain in self.domains]
        return [prompt for turn in zip(*groups, strict=True) for prompt in turn]


RECORDINGS = (
    *(Recording(f"tiny-{domain}-b1", (domain,), 3, 1, 72) for domain in DOMAINS),
    Recording("tiny-math-b1-full", ("math",), 1, 1, 96, lookahead=2, logits="full"),
    Recording("tiny-mixed-b8", ("code", "docs", "math", "prose"), 2, 8, 40, prompt_tokens=64),
    Recording("tiny-mixed-b8-long", ("code", "docs", "math", "prose"), 6, 8, 128, lookahead=0),
)

HEAD = """# Traces recorded from the tiny model

Real routing of a real, if small, model: the trained OLMoE in `specmd/tiny/` (8 layers of 16
experts, top-4), generating from its built-in held-out prompts. Written by
`python experiments/tiny_model/record_traces.py` with one torch thread in fp32. Text is **sampled**
(temperature 0.8, fixed seeds): greedy decoding of so small a model falls into loops. Each file
holds prefill and decode; a decode step of the `b8` files holds up to eight requests, fewer after
one ends.

Licence: Apache-2.0 like the project. The prompts are excerpts of the texts named in
`specmd/tiny/README.md`, under the terms given there (public domain, PSF-2.0, BSD-3-Clause).

The traces are for tests, examples and the quick start. Small experts and 8 layers make no claim
about the hit rates of a large model.

"Bigrams" is the share of distinct pairs among neighbouring generated tokens; a loop is near 0.

| file | prompts | batch | prefill + decode tokens | steps | lookahead | logits | bigrams | KB |
|---|---|---|---|---|---|---|---|---|
"""


def bigram_share(trace: Trace) -> float:
    """Share of distinct pairs among neighbouring generated tokens, mean over requests."""
    assert trace.token_ids is not None
    shares = []
    for request in range(trace.num_requests):
        ids = trace.token_ids[(trace.request == request) & (trace.phase == DECODE)]
        pairs = list(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
        if len(pairs) > 8:
            shares.append(len(set(pairs)) / len(pairs))
    return float(np.mean(shares))


def main() -> None:
    """Record every file and write the README of the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_tiny()
    lines = []
    for seed, recording in enumerate(RECORDINGS):
        prompts = recording.prompts()
        target = args.out / f"{recording.name}.npz"
        trace = record_model(
            model,
            tokenizer,
            prompts,
            max_new_tokens=recording.new_tokens,
            batch=recording.batch,
            logits=recording.logits,
            lookahead=recording.lookahead,
            out=target,
            seed=seed,
            max_prompt_tokens=recording.prompt_tokens,
            header={"license": "Apache-2.0"},
        )
        decode = int((trace.phase == DECODE).sum())
        lines.append(
            f"| {target.name} | {len(prompts)} {'+'.join(recording.domains)} | {recording.batch} | "
            f"{trace.num_tokens - decode} + {decode} | {trace.num_steps} | {recording.lookahead} | "
            f"{recording.logits} | {bigram_share(trace):.2f} | {target.stat().st_size / 1000:.0f} |"
        )
        print(lines[-1], flush=True)
    (args.out / "README.md").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
