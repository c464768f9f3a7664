"""Random ways of decoding, each run by the model alone, recorded, and offloaded.

A case is drawn from a seed: a family, prompts of unequal length with the padding id among their
tokens, how they are decoded (`generate` or a bare loop of forward calls), which KV cache, and which
tokens are forced on which row when: the padding id, an end of text that counts or one that the call
has switched off. A witness of its own notes what the model alone computes; it knows nothing of
`specmd.models.passes`. `python tests/models/random_decoding.py 300` runs many.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from live_models import build

from specmd import live
from specmd.models.moe import find_moe
from specmd.models.passes import cache_argument
from specmd.recording import Recorder
from specmd.trace import DECODE, Trace

PAD, EOS, OTHER_EOS, VOCAB = 1, 2, 3, 96
FAMILIES = ("olmoe", "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v2")
ENDS = ("none", "off", "eos", "list", "criterion", "criterion+eos")
Row = tuple[bool, int, list[list[int]]]  # whether decoded, token, experts a layer
LOOPS = ("generate", "chunks", "turns", "copies", "bare")


@cache
def model_of(family: str) -> Any:
    return build(family)


@dataclass(frozen=True)
class Case:
    """One case; `forced` is (step, row) -> token that the row emits there."""

    seed: int
    family: str
    loop: str
    ends: str
    static: bool
    sampled: bool
    rows: int
    columns: int
    new: int
    padding: tuple[int, ...]
    right: bool
    masked: bool
    chunk: int
    stop_after: tuple[int, ...]
    forced: tuple[tuple[int, int, int], ...]
    offload: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        kind = "static" if self.static else "dynamic"
        return (
            f"seed {self.seed}: {self.family}, {self.loop}, {kind} cache, ends {self.ends}, "
            f"{self.rows}x{self.columns}+{self.new}, padding {self.padding}"
        )


def draw(seed: int) -> Case:
    """Draw a case; every token may be forced, so all of them also end rows early or do not."""
    rng = np.random.default_rng(seed)

    def choose(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    loop = choose(*LOOPS, "generate", "bare")
    rows, columns, new = int(rng.integers(1, 5)), int(rng.integers(2, 10)), int(rng.integers(2, 10))
    forced = [
        (step, row, choose(PAD, PAD, EOS, OTHER_EOS))
        for step in range(new)
        for row in range(rows)
        if rng.random() < 0.15
    ]
    masked = rows > 1 and rng.random() < 0.7
    family, static = choose(*FAMILIES), bool(rng.random() < 0.3)
    if family == "deepseek_v2" and loop == "chunks":
        static = False  # some releases size that cache for keys as narrow as values, and fail
    right = bool(loop == "generate" and masked and rng.random() < 0.15)
    return Case(
        seed=seed,
        family=family,
        loop=loop,
        ends=choose(*ENDS),
        static=static,
        sampled=bool(rng.random() < 0.3),
        rows=rows,
        columns=columns,
        new=new,
        padding=tuple(int(rng.integers(0, columns)) if masked else 0 for _ in range(rows)),
        right=right,
        masked=bool(masked or rng.random() < 0.8),
        chunk=int(rng.integers(1, columns + 2)),
        stop_after=tuple(int(rng.integers(1, new + 2)) for _ in range(rows)),
        forced=tuple(forced),
        offload=(
            ("evict", choose("lru", "least_stale", "lfu")),
            ("prefetch", choose("none", "next_gate", "prev_token")),
            ("capacity", choose(2, 5, "50%", "100%")),
        ),
    )


def prompts(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (rows, columns); the padding id is among the ids that count."""
    rng = np.random.default_rng(case.seed + 1)
    ids = torch.from_numpy(rng.integers(4, VOCAB, (case.rows, case.columns)))
    if case.masked:  # without a mask transformers takes the padding id for padding, rightly
        ids[torch.from_numpy(rng.random(ids.shape) < 0.15)] = PAD
    mask = torch.ones_like(ids)
    for row, padding in enumerate(case.padding):
        if case.right:
            ids[row, case.columns - padding :] = PAD
            mask[row, case.columns - padding :] = 0
        else:
            ids[row, :padding], mask[row, :padding] = PAD, 0
    return ids, mask


class Forcing:
    """A logits processor that forces tokens, by the number of its call."""

    def __init__(self, case: Case) -> None:
        self.forced = {(step, row): token for step, row, token in case.forced}
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row in range(len(scores)):
            token = self.forced.get((self.step, row))
            if token is not None:
                scores[row] = -1e9
                scores[row, token] = 1.0
        self.step += 1
        return scores


class StopRows:
    """A stopping criterion of the user's: each row ends after its own number of tokens."""

    def __init__(self, after: tuple[int, ...], columns: int) -> None:
        self.after, self.columns = after, columns

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        made = input_ids.shape[1] - self.columns
        rows = len(input_ids)
        return torch.tensor([made >= self.after[row % len(self.after)] for row in range(rows)])


@dataclass
class Call:
    """One `generate`, or one batch of a bare loop: what went in and came out."""

    start: int  # columns in the cache before
    columns: int  # of the prompt, those in the cache too
    mask: torch.Tensor
    sequences: torch.Tensor  # (rows, columns + new)
    logits: list[torch.Tensor]


def decode(case: Case, model: Any) -> list[Call]:
    """Run a case."""
    torch.manual_seed(case.seed)
    if case.loop == "bare":
        return _bare_loop(case, model)
    ids, mask = prompts(case)
    first, output = _generate(case, model, ids, mask, 0)
    if case.loop != "turns":
        return [first]
    more = torch.full((case.rows, 2), 7)
    ids = torch.cat([first.sequences, more], dim=1)
    mask = torch.cat([mask, torch.ones(case.rows, ids.shape[1] - case.columns).long()], dim=1)
    for row, end in enumerate(ended_at(case, first)):  # what was fed after an end is padding
        mask[row, end : first.sequences.shape[1] - 1] = 0
    kept = output[cache_argument(model.model)]
    return [first, _generate(case, model, ids, mask, first.sequences.shape[1] - 1, kept)[0]]


def _generate(
    case: Case, model: Any, ids: torch.Tensor, mask: torch.Tensor, start: int, kept: Any = None
) -> tuple[Call, Any]:
    stopping = [StopRows(case.stop_after, ids.shape[1])]
    options: dict[str, Any] = {
        "none": {},
        "off": {"eos_token_id": None},
        "eos": {},
        "list": {"eos_token_id": [EOS, OTHER_EOS]},
        "criterion": {"stopping_criteria": stopping},
        "criterion+eos": {"stopping_criteria": stopping, "eos_token_id": EOS},
    }[case.ends]
    if kept is not None:
        options[cache_argument(model.model)] = kept
    elif case.static and case.loop != "turns":
        options |= {"cache_implementation": "static", "disable_compile": True}
    if case.loop == "chunks":
        options["prefill_chunk_size"] = case.chunk
    if case.loop == "copies":
        options["num_return_sequences"] = 2
    if case.masked or case.loop == "turns":
        options["attention_mask"] = mask
    # The model's default, which a call may switch off.
    model.generation_config.eos_token_id = EOS if case.ends in ("off", "eos") else None
    output = model.generate(
        input_ids=ids,
        max_new_tokens=case.new,
        do_sample=case.sampled or case.loop == "copies",
        top_k=0,
        pad_token_id=PAD,
        logits_processor=[Forcing(case)],
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )
    if case.loop == "copies":
        mask = mask.repeat_interleave(2, 0)
    return Call(start, ids.shape[1], mask, output.sequences, list(output.logits)), output


@torch.no_grad()
def _bare_loop(case: Case, model: Any) -> list[Call]:
    """Two batches in turns, with caches of the caller's or the model's own."""
    from transformers import StaticCache

    ids, mask = prompts(case)
    name, force = cache_argument(model.model), Forcing(case)
    calls, caches = [], []
    for first in range(min(2, case.rows)):
        calls.append(Call(0, case.columns, mask[first:], ids[first:], []))
        own = StaticCache(config=model.config, max_cache_len=32) if case.static else None
        caches.append(own)
    for step in range(case.new):
        for number, call in enumerate(calls):
            rows = len(call.sequences)
            given = {"attention_mask": call.mask} if case.masked else {}
            fed = call.sequences[:, -1:] if step else call.sequences
            output = model(fed, use_cache=True, **{name: caches[number]}, **given)
            caches[number] = output[name]
            logits = output.logits[:, -1]
            token = force(fed, logits.clone()).argmax(-1, keepdim=True)
            call.logits.append(logits)
            call.sequences = torch.cat([call.sequences, token], dim=1)
            call.mask = torch.cat([call.mask, torch.ones(rows, 1).long()], dim=1)
    return calls


class Witness:
    """What a model alone was fed and its gates chose, pass by pass: (ids, choices (B, q, L, K))."""

    def __init__(self, model: Any) -> None:
        self.moe = find_moe(model)
        self.passes: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def __enter__(self) -> Self:
        decoder = self.moe.decoder
        self.handles = [decoder.register_forward_pre_hook(self._fed, with_kwargs=True)]
        for layer in self.moe.layers:
            self.handles.append(layer.gate.register_forward_hook(self._chosen))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _fed(self, _decoder: Any, args: Any, kwargs: Any) -> None:
        self.passes.append((args[0] if args else kwargs["input_ids"], []))

    def _chosen(self, _gate: Any, _args: Any, output: Any) -> None:
        self.passes[-1][1].append(output[2].sort(dim=-1).values)


@cache
def off_is_off(family: str) -> bool:
    """Whether an explicit `eos_token_id=None` switches the model's default off, as seen outside."""
    case = Case(0, family, "generate", "off", False, False, 1, 3, 3, (0,), False, True, 1, (9,),
                ((0, 0, EOS), (1, 0, 7)), ())  # fmt: skip
    return bool(decode(case, model_of(family))[0].sequences.shape[1] > 4)


def ended_at(case: Case, call: Call) -> list[int]:
    """Return at which place of its sequence each row ends and is padded from then on."""
    ids = {"eos": [EOS], "list": [EOS, OTHER_EOS], "criterion+eos": [EOS]}.get(case.ends, [])
    if case.ends == "off" and not off_is_off(case.family):
        ids = [EOS]
    never = call.sequences.shape[1]
    if not ids or case.loop == "bare":
        return [never] * len(call.sequences)
    found = []
    for row, tokens in enumerate(call.sequences.tolist()):
        places = [p for p in range(call.columns, never) if tokens[p] in ids]
        if case.ends == "criterion+eos":
            stop = case.stop_after[row % len(case.stop_after)]
            places.append(call.columns + stop - 1)
        found.append(min([never, *places]))
    return found


def used_rows(case: Case, calls: list[Call], witness: Witness) -> list[Row]:
    """Return the rows that the model ran and used, told from prompts and finished tokens alone."""
    rows: list[Row] = []
    places = [call.start for call in calls]
    ends = [ended_at(case, call) for call in calls]
    at = 0  # the call whose pass it is
    for number, (ids, chosen) in enumerate(witness.passes):
        if case.loop == "bare":
            at = number % len(calls)
        elif places[at] == calls[at].sequences.shape[1] - 1:
            at += 1
        call, start = calls[at], places[at]
        choices = torch.stack(chosen, dim=1).reshape(*ids.shape, len(chosen), -1).tolist()
        for row, column in np.ndindex(*ids.shape):
            place = start + column
            prompt = place < call.columns
            used = bool(call.mask[row, place]) if prompt else place < ends[at][row]
            if prompt and place == call.columns - 1 and case.loop != "bare":
                used = True  # what is sampled from
            if used:
                rows.append((not prompt, int(ids[row, column]), choices[row][column]))
        places[at] += ids.shape[1]
    return rows


def traced_rows(trace: Trace) -> list[Row]:
    """Return the rows of a trace."""
    assert trace.token_ids is not None
    chosen = np.sort(trace.expert_ids, axis=-1).tolist()
    decoded = (trace.phase == DECODE).tolist()
    return list(zip(decoded, trace.token_ids.tolist(), chosen, strict=True))


def check(case: Case) -> None:
    """Hold a case's recording and its offloaded run against the model alone."""
    model = model_of(case.family)
    off_is_off(case.family)  # asked before anything is watched
    with Witness(model) as witness:
        own = decode(case, model)
    with Recorder(model) as recorder:
        again = decode(case, model)
    with live.offload(
        model, **dict(case.offload), link="cpu", interpreted=True, log_routing=True, canary=True
    ) as offloaded:
        cached = decode(case, model)
    for alone, recorded, run in zip(own, again, cached, strict=True):
        assert torch.equal(alone.sequences, recorded.sequences)
        assert torch.equal(alone.sequences, run.sequences), (alone.sequences, run.sequences)
        ends = torch.tensor(ended_at(case, alone))
        for step, (one, other) in enumerate(zip(alone.logits, run.logits, strict=True)):
            used = ends > alone.columns + step - 1
            torch.testing.assert_close(one[used], other[used], rtol=1e-3, atol=1e-3)
    expected = used_rows(case, own, witness)
    assert traced_rows(recorder.trace) == expected
    assert traced_rows(offloaded.trace) == expected


def main() -> None:
    """Check cases from a seed on: `python random_decoding.py [count] [first seed]`."""
    given = [int(text) for text in sys.argv[1:]]
    count, first = given[0] if given else 300, given[1] if len(given) > 1 else 0
    kinds: Counter[str] = Counter()
    for seed in range(first, first + count):
        case = draw(seed)
        kinds.update([case.loop, f"ends {case.ends}", "static" if case.static else "dynamic"])
        try:
            check(case)
        except BaseException:
            print(f"FAILED {case}", flush=True)
            raise
    print(f"{count} cases from seed {first}, all equal: {dict(sorted(kinds.items()))}")


if __name__ == "__main__":
    main()
