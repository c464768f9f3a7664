"""What stands below the options of every command: examples, units, and how it exits."""

from __future__ import annotations

_T = "mine.npz"
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "record": (
        "specmd record tiny --domain code --out mine.npz",
        "specmd record allenai/OLMoE-1B-7B-0924 --prompts mine.jsonl --batch 8",
    ),
    "import": (
        "specmd import routes.jsonl mine.npz --experts 64 --expert-bytes 12.6MB",
        "specmd import moe.csv mine.npz --experts 32 --model gpt-oss-20b",
    ),
    "export": (f"specmd export {_T} routes.jsonl --format jsonl",),
    "split": (f"specmd split {_T} learn.npz judge.npz --share 0.5",),
    "train": (
        "specmd train learned_linear learn.npz -o mine.safetensors",
        "specmd train learned_linear learn.npz -o control.safetensors --shuffled",
    ),
    "inspect": (
        f"specmd inspect {_T}",
        f"specmd inspect {_T} --curve --figure curve.svg",
    ),
    "simulate": (
        f"specmd simulate {_T} -e lru -e lfu -c 20% -c 40% --profile t4",
        f"specmd simulate {_T} -c '8MB total' -p none -p next_gate --rank hit_rate",
        "specmd simulate hf://datasets/OWNER/NAME/mine.npz -c 8GB --profile rtx4090",
        f"specmd simulate {_T} -c 8GB --profile rtx4090 --timeline steps.json",
        "specmd simulate --validate runs --profile this-machine.toml",
    ),
    "sweep": (
        f"specmd sweep {_T} -e lru -e lfu -c 5% -c 10% --out results",
        "specmd sweep --config experiment.toml --dry-run",
        f"specmd sweep {_T} -c 5% --out results --shard 2/8",
    ),
    "run": (
        "specmd run tiny -e lru -e lfu -c 40% --throttle 0.05GB/s,20us --out runs",
        f"specmd run --trace {_T} --shape olmoe-1b-7b --layers 4 -c 25%",
    ),
    "calibrate": (
        "specmd calibrate tiny --out this-machine.toml",
        "specmd calibrate --anchor resident=4.4ms --anchor no_cache=52ms \\\n"
        f"      --profile rtx4090 --trace {_T}",
    ),
    "board": ("specmd board", "specmd board --row 'big-moe*' --format csv"),
    "recommend": ("specmd recommend mine.npz --profile rtx4090 --memory 8GB",),
    "compare": (
        "specmd compare before after --fail-on tpot:5%",
        "specmd compare results --by profile --metric tpot",
    ),
    "report": ("specmd report results --html report.html",),
    "show": (
        "specmd show results --metric hit_rate --metric tpot_s --rank tpot_s",
        "specmd show results runs --export all.csv --figure all.svg",
    ),
    "selftest": ("specmd selftest --device cuda", "specmd selftest --device cpu --part link"),
    "list": (
        "specmd list policies --axis evict --lossless",
        "specmd list policies --plugin mine.py",
        "specmd list traces traces --format json",
    ),
    "validate": (
        f"specmd validate trace {_T}",
        "specmd validate policy mine.py",
        "specmd validate config --schema",
    ),
    "new": ("specmd new policy mine", "specmd new policy mine --axis prefetch"),
    "env": ("specmd env",),
}

_SIZES = (
    "Units: 1 GB is 10^9 bytes, 1 GiB 2^30; 5% are of all experts of the model. Times are ms in "
    "tables, seconds in csv and json."
)
_UNITS = dict.fromkeys(("simulate", "sweep", "run", "recommend"), _SIZES)

_EXITS = {
    0: "ok",
    1: "a run failed",
    2: "usage or invalid input",
    3: "a threshold crossed",
    4: "some runs failed",
    5: "a file not written",
    130: "interrupted",
}
_OWN_EXITS: dict[str, dict[int, str]] = {
    "simulate": {1: _EXITS[1]},
    "sweep": {1: "all runs failed", 4: _EXITS[4]},
    "run": {1: _EXITS[1]},
    "calibrate": {1: "the profile failed its check and is not written"},
    "selftest": {1: "a part failed"},
    "validate": {1: "a policy failed a check"},
    "compare": {3: _EXITS[3]},
}
_READS_ONLY = {"env", "list", "validate"}


def epilog(command: str) -> str:
    """Return the text below a command's options, in lines that keep their breaks."""
    exits = {0: "ok", 2: _EXITS[2], 130: _EXITS[130]} | _OWN_EXITS.get(command, {})
    if command not in _READS_ONLY:
        exits[5] = _EXITS[5]
    parts = []
    if examples := _EXAMPLES.get(command):
        parts.append("\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples))
    if units := _UNITS.get(command):
        parts.append(units)
    said = ", ".join(f"{code} {text}" for code, text in sorted(exits.items()))
    parts.append(f"Exit codes: {said}.")
    return "\n\n".join(parts)


def examples(command: str) -> tuple[str, ...]:
    """Return the examples of a command."""
    return _EXAMPLES.get(command, ())
