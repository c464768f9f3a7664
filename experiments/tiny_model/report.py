"""Say what the tiny model and its router have learnt, on text held out of training.

    python experiments/tiny_model/report.py

Loss against a unigram model, and of the routing, layer by layer, each figure beside its chance:

* popularity: the share of all choices that the four most chosen experts take (uniform: K/E);
* reuse: the share of a token's experts that its left neighbour chose too. Chance is what two
  independent tokens share when each draws experts by that layer's popularity;
* recall: the share of a layer's K choices among the K best scores its gate gave one layer earlier.
  Chance is K/E; guessing the most popular K experts is given beside it.
"""

# ruff: noqa: T201 - the report is what this script prints
from __future__ import annotations

import argparse
from pathlib import Path

import corpus
import numpy as np
import torch
from train import SEED, TINY, encode, unigram_loss, validation_loss
from transformers import AutoTokenizer, OlmoeForCausalLM

from specmd.recording import Recorder

WINDOWS, LENGTH = 24, 192


def main() -> None:
    """Print the report as two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("build/tiny_model"))
    parser.add_argument("--model", type=Path, default=TINY)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = OlmoeForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)._tokenizer
    docs = corpus.capped(list(corpus.documents(corpus.fetch(args.cache))))
    train = encode(tokenizer, [d for d in docs if not d.is_validation])
    held_out = encode(tokenizer, [d for d in docs if d.is_validation])

    losses = validation_loss(model, held_out, WINDOWS, LENGTH)
    print("| domain | training tokens | held-out loss (nats/token) | unigram |")
    print("|---|---|---|---|")
    for domain, loss in losses.items():
        baseline = unigram_loss(train, {domain: held_out[domain]})
        print(f"| {domain} | {len(train[domain]):,} | {loss:.2f} | {baseline:.2f} |")
    mean = np.mean(list(losses.values()))
    print(f"| mean | | {mean:.2f} | {unigram_loss(train, held_out):.2f} |\n")

    rng = np.random.default_rng(SEED)
    model.eval()
    with torch.no_grad(), Recorder(model, lookahead=1) as recorder:
        for stream in held_out.values():
            starts = rng.integers(0, len(stream) - LENGTH, WINDOWS)
            model(torch.stack([stream[s : s + LENGTH] for s in starts]))
    trace = recorder.trace
    tokens, layers, top_k = trace.expert_ids.shape
    experts = trace.header.num_experts
    chosen = np.zeros((tokens, layers, experts), dtype=bool)
    np.put_along_axis(chosen, trace.expert_ids.astype(np.int64), True, axis=-1)
    neighbours = np.flatnonzero(np.diff(trace.request) == 0)
    print(f"{tokens:,} held-out tokens, E = {experts}, K = {top_k}, K/E = {top_k / experts:.2f}\n")
    print("| layer | top-4 share | least used | reuse | chance | recall raw | renorm. | popular |")
    print("|---|---|---|---|---|---|---|---|")
    for layer in range(layers):
        used = chosen[:, layer].mean(0)  # probability that a token chooses the expert
        share = np.sort(used)[::-1] / top_k
        reuse = (chosen[neighbours, layer] & chosen[neighbours + 1, layer]).sum(1).mean() / top_k
        chance = (used**2).sum() / top_k
        cells = [f"{share[:4].sum():.2f}", f"{share[-1]:.3f}", f"{reuse:.2f}", f"{chance:.2f}"]
        if layer:
            for scores in (trace.lookahead, trace.lookahead_renormalised):
                best = np.argsort(-scores[:, layer - 1, 0], axis=-1)[:, :top_k]
                hit = np.take_along_axis(chosen[:, layer], best, axis=-1)
                cells.append(f"{hit.mean():.2f}")
            cells.append(f"{np.sort(used)[::-1][:top_k].mean():.2f}")
        else:
            cells += ["", "", ""]
        print(f"| {layer} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
