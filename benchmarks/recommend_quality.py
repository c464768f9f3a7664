"""How good is `specmd recommend`: its choice beside the best of all compositions, and its time.

    python benchmarks/recommend_quality.py TRACE... --memory 8GB --profile rtx4090 --profile t4

Every trace is cut to slices (`--slice 0:4000` of tokens; several; default the whole) on which both
are run: the search, and every composition of the same space. Regret is the time of the choice over
the best of all, less 1. Everything is simulated; kernels that are not compiled yet cost the
exhaustive side minutes, so `--evictions` can leave evictions out of it, which it says.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from specmd.advice.answer import recommend
from specmd.advice.question import Question
from specmd.advice.search import batches
from specmd.advice.space import composition, make_space, spell
from specmd.advice.trials import Trials
from specmd.hardware.machine import cores
from specmd.policy.needs import offered
from specmd.simulation.simulate import prepared
from specmd.trace import Trace, load, slice_tokens


def exhaustive(
    trace: Trace, question: Question, evictions: set[str], prefetchers: set[str]
) -> dict[str, tuple[float, str, int]]:
    """Run everything; return by profile the best time, its composition, and how many were run."""
    space = make_space(offered(trace, None), trace.header.num_layers)

    def is_tried(evict: str, prefetch: str) -> bool:
        name = prefetch.partition(":")[0]
        if prefetchers and name not in prefetchers:
            return False
        return name == "none" or not evictions or evict.partition(":")[0] in evictions

    tries = [each for each in space.compositions() if is_tried(each[0], each[1])]
    configs = question.configs(trace, tries)
    played = prepared(trace, configs[0])
    best: dict[str, tuple[float, str, int]] = {}
    with Trials(played, workers=cores()) as trials:
        made = trials.run(batches(configs, played.num_steps), "everything", lambda *_: None)
    for trial in made:
        name, value = str(trial.run.config.profile), question.value(trial.run)
        if value < best.get(name, (float("inf"),))[0]:
            best[name] = value, spell(composition(trial.run.config)), len(tries)
    return best


def main() -> None:
    """Print a line for each slice and profile."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--memory", default="8GB")
    parser.add_argument("--profile", action="append")
    parser.add_argument("--slice", action="append", help="tokens, as 0:4000")
    parser.add_argument("--context", type=int)
    parser.add_argument("--evictions", nargs="*", default=[], help="that are tried with prefetch")
    parser.add_argument("--prefetchers", nargs="*", default=[])
    asked = parser.parse_args()
    options = {} if asked.context is None else {"context": asked.context}
    question = Question(
        asked.memory, tuple(asked.profile or ("rtx4090", "h100_sxm", "t4")), options=options
    )
    for path in asked.traces:
        whole = load(path)
        for cut in asked.slice or [":"]:
            first, last = (int(each) if each else None for each in cut.split(":"))
            trace = whole if cut == ":" else slice_tokens(whole, first or 0, last)
            began = time.perf_counter()
            answer = recommend(trace, question)
            searched_s = time.perf_counter() - began
            best = exhaustive(trace, question, set(asked.evictions), set(asked.prefetchers))
            all_s = time.perf_counter() - began - searched_s
            for column in answer.columns:
                seconds, name, tried = best[column.profile]
                mine, chosen = column.ranking[0][1], spell(column.composition)
                print(
                    f"{path.stem}[{cut}] {column.profile:10} regret {mine / seconds - 1:7.3%}  "
                    f"{1e3 * mine:.4g} ms: {chosen}; best of {tried}: {1e3 * seconds:.4g} ms: "
                    f"{name}; {searched_s:.0f} s, everything {all_s:.0f} s"
                )


if __name__ == "__main__":
    main()
