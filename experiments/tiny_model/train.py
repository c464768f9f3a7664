"""Train the tiny OLMoE that SpecMD ships: `python experiments/tiny_model/train.py --steps 2400`.

The model is transformers' own `OlmoeForCausalLM`, only small: 8 layers x 16 experts, top-4. What
matters is not its prose but that its router has learnt something, so that a trace recorded from it
has the locality of a real one. Two choices serve that:

* the load-balancing loss is taken *per layer*. The auxiliary loss of transformers pools the router
  logits of all layers, so a layer may starve experts that another layer overuses, and experts die;
* every batch mixes the domains evenly, so that balance within a batch leaves room for an expert to
  belong to a domain.

One thread, fixed seeds and data order: two runs on one machine and one torch version agree. A
checkpoint is exported every `--save-every` steps, so a usable model exists at any time.
"""

# ruff: noqa: T201 - progress of a long run goes to the terminal
from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import corpus
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

SEED = 20260
EOS, PAD = "<|endoftext|>", "<|pad|>"
VOCAB = 2048
TINY = Path(__file__).resolve().parents[2] / "specmd" / "tiny"


def config() -> OlmoeConfig:
    """8 MoE layers x 16 experts, top-4: 3.95 M parameters, 8 MB in bf16."""
    return OlmoeConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=16,
        num_experts_per_tok=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=0,
        norm_topk_prob=False,
    )


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE with `VOCAB` entries; id 0 ends a text, id 1 pads a batch."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=[EOS, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def encode(tokenizer: Tokenizer, docs: list[corpus.Document]) -> dict[str, torch.Tensor]:
    """One token stream a domain (int64), documents in a seeded order, each ended by id 0."""
    order = np.random.default_rng(SEED).permutation(len(docs))
    streams: dict[str, list[int]] = {}
    for index in order:
        ids = tokenizer.encode(docs[index].text).ids
        streams.setdefault(docs[index].domain, []).extend([*ids, 0])
    return {domain: torch.tensor(ids) for domain, ids in sorted(streams.items())}


class GateTap:
    """Collects the router logits of every layer of one forward pass, for the per-layer loss."""

    def __init__(self, model: OlmoeForCausalLM) -> None:
        self.logits: list[torch.Tensor] = []
        for layer in model.model.layers:
            layer.mlp.gate.register_forward_hook(lambda _m, _a, out: self.logits.append(out[0]))

    def balance_loss(self, top_k: int) -> torch.Tensor:
        """Mean over layers of E * sum(share of choices * mean probability): 1 when balanced."""
        losses = []
        for logits in self.logits:
            probability = logits.float().softmax(-1)  # (tokens, E)
            chosen = torch.zeros_like(probability).scatter_(1, probability.topk(top_k).indices, 1.0)
            share = chosen.mean(0) / top_k
            losses.append(logits.shape[-1] * (share * probability.mean(0)).sum())
        self.logits.clear()
        return torch.stack(losses).mean()


def draw(
    streams: dict[str, torch.Tensor], rng: np.random.Generator, step: int, rows: int, length: int
) -> torch.Tensor:
    """Return the batch (rows, length + 1) of one step, the domains in turn.

    Every fourth step has half as many rows twice as long, so that later positions are trained too.
    """
    if step % 4 == 0:
        rows, length = rows // 2, length * 2
    domains = list(streams)
    windows = []
    for row in range(rows):
        stream = streams[domains[(step * rows + row) % len(domains)]]
        start = int(rng.integers(len(stream) - length - 1))
        windows.append(stream[start : start + length + 1])
    return torch.stack(windows)


def validation_loss(
    model: OlmoeForCausalLM, streams: dict[str, torch.Tensor], windows: int, length: int
) -> dict[str, float]:
    """Mean nats a token of each domain over `windows` evenly spaced windows of `length` tokens."""
    model.eval()
    losses = {}
    with torch.no_grad():
        for domain, stream in streams.items():
            starts = np.linspace(0, len(stream) - length - 1, windows).astype(int)
            batch = torch.stack([stream[s : s + length + 1] for s in starts])
            logits = model(batch[:, :-1]).logits
            losses[domain] = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch[:, 1:].flatten()
            ).item()
    model.train()
    return losses


def unigram_loss(train: dict[str, torch.Tensor], held_out: dict[str, torch.Tensor]) -> float:
    """Nats a token of the best context-free model: add-one unigram counts of the training text."""
    counts = torch.bincount(torch.cat(list(train.values())), minlength=VOCAB).double() + 1
    log_p = (counts / counts.sum()).log()
    return float(np.mean([-log_p[stream].mean().item() for stream in held_out.values()]))


def export(model: OlmoeForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, bf16 safetensors and tokenizer, as transformers' own loaders expect them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    half = OlmoeForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(state)
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, bos_token=EOS, padding_side="left"
    )
    fast.save_pretrained(folder)


def main() -> None:
    """Fetch, tokenise, train, export; prints one line per validation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("build/tiny_model"))
    parser.add_argument("--out", type=Path, default=TINY)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument(
        "--batch", type=int, default=8, help="sequences a step, spread over domains"
    )
    parser.add_argument("--length", type=int, default=192, help="tokens a sequence")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the per-layer loss")
    parser.add_argument("--save-every", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)

    docs = corpus.capped(list(corpus.documents(corpus.fetch(args.cache))))
    training = [d for d in docs if not d.is_validation]
    tokenizer = train_tokenizer([d.text for d in training])
    train = encode(tokenizer, training)
    held_out = encode(tokenizer, [d for d in docs if d.is_validation])
    baseline = unigram_loss(train, held_out)
    sizes = {domain: len(stream) for domain, stream in train.items()}
    print(f"train tokens {sizes}, unigram {baseline:.3f} nats", flush=True)

    model = OlmoeForCausalLM(config())
    model.set_experts_implementation("grouped_mm")  # a third faster than the eager loop here
    tap = GateTap(model)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.95),
    )
    rng = np.random.default_rng(SEED + 1)
    started = time.perf_counter()
    log = []
    model.train()
    for step in range(1, args.steps + 1):
        warm = min(1.0, step / 100)
        share = warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * share
        batch = draw(train, rng, step, args.batch, args.length)
        logits = model(batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        balance = tap.balance_loss(model.config.num_experts_per_tok)
        optimizer.zero_grad(set_to_none=True)
        (loss + args.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0:
            elapsed_s = time.perf_counter() - started
            print(
                f"step {step} loss {loss:.3f} balance {balance:.3f} {elapsed_s:.0f} s", flush=True
            )
        if step % args.save_every == 0 or step == args.steps:
            losses = validation_loss(model, held_out, windows=12, length=args.length)
            tap.logits.clear()
            mean = float(np.mean(list(losses.values())))
            elapsed_s = time.perf_counter() - started
            print(f"step {step} validation {mean:.3f} {losses} {elapsed_s:.0f} s", flush=True)
            log.append(
                {"step": step, "validation_nats": round(mean, 4), "seconds": round(elapsed_s)}
            )
            export(model, tokenizer, args.out)
            facts = {
                "unigram_nats": round(baseline, 4),
                "by_domain": {k: round(v, 4) for k, v in losses.items()},
                "steps": step,
                "tokens_a_step": args.batch * args.length,
                "train_tokens": sizes,
                "history": log,
            }
            (args.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
