"""What is asked of a machine, part by part, before its numbers are believed.

Each part asks one thing of the live cache on one device and answers with what it found, whether
that is as it should be, and the rows that show it. Parts share nothing, so that one that fails,
hangs or takes its process with it says nothing about the others. `specmd selftest` runs each in a
process of its own and writes a page of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live import offload
from specmd.live.placement import find_device

NOT_RUN = "not run: "
EXPERT_BYTES = 12_582_912  # of OLMoE-1B-7B in bf16
LARGEST_ERROR = 0.25  # of a simulated time
ROOT = Path(__file__).resolve().parents[2]  # of a checkout


@dataclass(frozen=True)
class Answer:
    """What a part found.

    Attributes:
        passed: whether all was as it should be.
        summary: one line, beginning with NOT_RUN where there was nothing to ask.
        columns: titles of `rows`.
        rows: the evidence.
        failures: one text for each thing that was not as it should be.
        profile: a hardware profile of the device, as TOML.

    """

    passed: bool
    summary: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    failures: Sequence[str] = ()
    profile: str = ""


def device(name: str) -> Answer:
    """Facts of the device: by NVML where it is NVIDIA's, else what torch says."""
    from specmd.measurement.measuring import device_facts

    facts = device_facts(find_device("auto", name)[0])
    return Answer(True, str(facts["name"]), ("fact", "value"), list(facts.items()))


def suite(name: str) -> Answer:
    """Run the tests that need an accelerator, from a checkout."""
    if name == "cpu":
        return Answer(True, f"{NOT_RUN}the tests of accelerators need one")
    if not (ROOT / "tests" / "live").is_dir():
        return Answer(True, f"{NOT_RUN}the tests are in the repository: run this from a clone")
    import pytest

    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    skipped: list[tuple[str, str]] = []

    class Listener:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                outcomes[report.outcome] += 1
            if report.failed:
                failures.append(f"{report.nodeid} ({report.when})\n{report.longreprtext[-2000:]}")
            if report.skipped and isinstance(report.longrepr, tuple):
                skipped.append((report.nodeid, report.longrepr[2]))

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                failures.append(f"{report.nodeid}\n{report.longreprtext[-2000:]}")

    argv = ["-m", "gpu", "-q", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    code = pytest.main([*argv, "-p", "no:cacheprovider", str(ROOT / "tests")], [Listener()])
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    if code and not failures:
        failures.append(f"pytest ended with {code!s}")
    return Answer(code == 0, counts or "no test ran", ("skipped", "why"), skipped, failures)


def decisions(name: str) -> Answer:
    """Compare the decisions of live runs with those of simulations of their traces."""
    from specmd.simulation.simulate import simulate

    rows, failures = [], []
    model, inputs = _tiny(rows=1)
    for evict in ("lru", "lfu", "least_stale", "arc"):
        for prefetch in ("none", "prev_token", "next_gate:depth=2,width=6"):
            options: dict[str, Any] = {"evict": evict, "prefetch": prefetch, "capacity": 20}
            options |= {"schedule": "guard", "interpreted": True}
            with offload(model, device=name, **options, deterministic=True, log_routing=True) as it:
                _generate(model, inputs)
            run = simulate(it.trace, **options, bounds=False)
            live, simulated = it.decision_digest, run.decision_digest
            counts = (it.report().misses, run.metrics["misses"])
            rows.append((evict, prefetch, live, simulated, *counts))
            if live != simulated or counts[0] != counts[1]:
                failures.append(f"{evict}, {prefetch}: {live} live, {simulated} simulated")
    columns = ("evict", "prefetch", "live", "simulated", "misses live", "misses simulated")
    equal = f"{len(rows) - len(failures)} of {len(rows)} decision digests are the simulator's"
    return Answer(not failures, equal, columns, rows, failures)


def tokens(name: str) -> Answer:
    """Compare tokens and logits, bit for bit, with every expert resident; tokens with the model."""
    ways: list[dict[str, Any]] = [
        {"capacity": 10},
        {"capacity": 40, "prefetch": "next_gate:depth=2,width=4", "miss": "block"},
        {"capacity": 40, "prefetch": "prev_token", "chunk_bytes": 5000, "pinned_budget": 0},
        {"capacity": 40, "prefetch": "random:width=8", "pinned_budget": 1 << 20},
        {"capacity": 20, "prefill": "bypass"},
        {"capacity": 20, "prefill": "double_buffer"},
    ]
    rows: list[tuple[object, ...]] = []
    failures = []
    for batch in (1, 8):
        model, inputs = _tiny(rows=batch)
        own = _generate(model, inputs)
        with offload(model, device=name, capacity="100%", interpreted=True):
            resident = _generate(model, inputs)
        same = torch.equal(own[0], resident[0])
        apart = float((own[1] - resident[1]).abs().max()) if same else float("nan")
        rows.append(
            (batch, "all resident, beside the model itself on the host", same, f"{apart:.2g}")
        )
        if not same:
            failures.append(f"batch {batch}, all resident: other tokens than the model's own")
        for way in ways:
            with offload(model, device=name, canary=True, interpreted=True, **way):
                ids, logits = _generate(model, inputs)
            same = torch.equal(ids, resident[0]) and torch.equal(logits, resident[1])
            said = ", ".join(f"{key}={value}" for key, value in way.items())
            rows.append((batch, said, same, ""))
            if not same:
                failures.append(f"batch {batch}, {said}: not those of the resident engine")
    equal = f"{len(rows) - len(failures)} of {len(rows)} generations equal, bit for bit"
    columns = ("batch", "cache", "equal", "largest difference of logits")
    return Answer(not failures, equal, columns, rows, failures)


def overlap(name: str) -> Answer:
    """Whether copies hide behind computing; see `specmd.measurement.overlap`."""
    from specmd.measurement.overlap import (
        BLOCKING_LIMIT,
        LARGER_LEG_LIMIT,
        WORKING,
        measure_overlap,
    )

    found = measure_overlap(device=name)
    rows = [
        (
            row["prefetch"],
            row["miss"],
            *(f"{row[part] * 1e3:.2f}" for part in ("step_s", "busy_step_s")),
            f"{(row['demand_stall_step_s'] + row['late_stall_step_s']) * 1e3:.2f}",
            f"{row['over_larger_leg']:.3f}",
            f"{row['over_blocking']:.3f}",
        )
        for row in found.rows
    ]
    working = found.rows[WORKING]
    summary = (
        f"with {working['prefetch']} a step takes {working['over_larger_leg']:.2f} of its larger "
        f"leg (limit {LARGER_LEG_LIMIT}) and {working['over_blocking']:.2f} of the blocking run "
        f"(limit {BLOCKING_LIMIT}); {found.compute_s * 1e3:.2f} ms all resident, link throttled to "
        f"{found.bytes_per_s / 1e9:.2f} GB/s"
    )
    columns = ("prefetch", "miss", "step (ms)", "copy (ms)", "stall (ms)", "/larger", "/blocking")
    return Answer(found.met, summary, columns, rows, [] if found.met else ["a limit is not met"])


def link(name: str) -> Answer:
    """Count the bytes that are really pinned and moved, and how fast the link carries them."""
    from specmd.calibration.link import measure_link
    from specmd.live.stores.store import HostStore
    from specmd.measurement.overlap import predictable_model
    from specmd.models.layout import read_layouts
    from specmd.models.moe import find_moe

    place, kind = find_device("auto", name)
    needs_pinned = kind == "accelerator"
    model = predictable_model()
    moe = find_moe(model)
    layouts = read_layouts(moe)
    count, blob_bytes = layouts.num_keys, layouts.largest_bytes
    budget = None if needs_pinned else 0
    store = HostStore(layouts, pinned_budget_bytes=budget)
    inputs = {"input_ids": torch.arange(3, 35).reshape(1, -1)}
    options: dict[str, Any] = {"evict": "lru", "capacity": "50%", "interpreted": True}
    with offload(model, device=name, store=store, **options) as cache:
        said = [store.is_pinned(key) for key in range(count)]
        asked = [needs_pinned and store.blob(key).is_pinned() for key in range(count)]
        _generate(model, inputs)
        report = cache.report()
    pinned_bytes, expected = sum(asked) * blob_bytes, report.misses * blob_bytes
    rows: list[tuple[str, object]] = [
        ("experts in host memory (bytes)", report.store_bytes),
        ("of them pinned, by is_pinned of every blob (bytes)", pinned_bytes),
        ("of them pinned, as the store counts (bytes)", store.pinned_bytes),
        ("why pinning stopped", report.pin_failure or "it did not"),
        ("moved by a generation (bytes)", report.moved_bytes),
        ("its misses, times the size of an expert (bytes)", expected),
        ("GB/s while it moved them", f"{(report.link_bytes_per_s or 0) / 1e9:.2f}"),
        ("slots (bytes)", report.slot_bytes),
        ("peak of the device's allocator (bytes)", report.peak_device_bytes),
    ]
    if place.type == "cuda":
        held = torch.cuda.host_memory_stats().get("allocated_bytes.current", "unknown")
        rows.append(("held by torch's pinned allocator at the end (bytes)", held))
    figures = measure_link(place, EXPERT_BYTES, 4 << 20)
    rows += [
        (f"{transfers} transfers of {size:,} bytes", f"{transfers * size / seconds / 1e9:.2f} GB/s")
        for size, transfers, seconds in figures.times
    ]
    failures = []
    if said != asked:
        failures.append(f"{sum(said)} blobs are called pinned, {sum(asked)} are")
    if needs_pinned and not all(asked):
        failures.append(f"{count - sum(asked)} of {count} blobs are pageable: {report.pin_failure}")
    if report.moved_bytes != expected:
        failures.append(f"{report.moved_bytes} bytes moved for {report.misses} misses: {expected}")
    summary = (
        f"{pinned_bytes:,} of {report.store_bytes:,} bytes pinned, {report.moved_bytes:,} moved; "
        f"{figures.bytes_per_s / 1e9:.2f} GB/s, {figures.latency_s * 1e6:.0f} us a transfer, "
        f"{figures.wake_s * 1e6:.0f} us to wake (fit within {figures.misfit:.1%})"
    )
    return Answer(not failures, summary, ("what", "measured"), rows, failures)


def calibration(name: str) -> Answer:
    """Calibrate with the embedded model, then compare simulated with measured runs of it."""
    from specmd.calibration import calibrate
    from specmd.hardware.shape import shape_for_model
    from specmd.hardware.toml import profile_text
    from specmd.measurement.prediction import TIMES
    from specmd.measurement.settings import LiveSettings
    from specmd.measurement.sources import PromptSource
    from specmd.models.generation import Generation
    from specmd.models.prompts import read_prompts

    settings = LiveSettings(device=name, repetitions=2)
    prompts = tuple(read_prompts())
    source = PromptSource(
        "tiny", Generation(prompts[:2], max_new_tokens=8, temperature=0), "float32"
    )
    found = calibrate(source.workload(), shape_for_model(source.name), settings)
    others = PromptSource(
        "tiny", Generation(prompts[2:4], max_new_tokens=8, temperature=0), "float32"
    )
    expert_bytes = source.header().expert_bytes or 0
    slow = (expert_bytes / (8 * found.expert_s[1]), 20e-6)
    rows, failures = [], []
    for each in _predictions(others, settings, (None, slow), found.profile):
        config, measurement = each.run.config, each.run.measurement
        pace = measurement and measurement.throttle_bytes_per_s
        where = f"{config.evict}, {config.capacity}, "
        where += f"link at {pace / 1e9:.3f} GB/s" if pace else "link as it is"
        row = [where]
        for time in TIMES:
            error = each.error(time)
            for value in (each.run.metrics.get(time), each.predicted.get(time)):
                row.append(f"{value * 1e3:.3f}" if value else "")
            row.append("" if error is None else f"{error:+.1%}")
            if error is None or abs(error) > LARGEST_ERROR:
                failures.append(f"{where}: {time} simulated {row[-1] or 'or measured: none'}")
        rows.append(row)
    columns = ["run"]
    for time in TIMES:
        columns += [f"{time} measured (ms)", "simulated (ms)", "error"]
    summary = f"{len(failures)} of {2 * len(rows)} times are off by more than {LARGEST_ERROR:.0%}"
    check = found.profile.check
    if check is not None and not check.accepted:
        failures.append(f"the profile is refused: {check.reason}")
        summary += "; the profile is refused"
    return Answer(not failures, summary, columns, rows, failures, profile_text(found.profile))


PARTS: dict[str, Callable[[str], Answer]] = {
    "device": device,
    "link": link,
    "decisions": decisions,
    "tokens": tokens,
    "overlap": overlap,
    "calibration": calibration,
    "suite": suite,
}


def ask(part: str, name: str) -> Answer:
    """Run one part; whatever it raises is its failure."""
    try:
        return PARTS[part](name)
    except SpecmdError as error:
        return Answer(False, str(error), failures=[str(error)])
    except Exception as error:
        import traceback

        text = "".join(traceback.format_exception(error)[-6:])
        return Answer(False, f"{type(error).__name__}: {error}".splitlines()[0], failures=[text])


def _predictions(source: Any, settings: Any, paces: Sequence[Any], profile: Any) -> Iterator[Any]:
    from specmd.measurement.measuring import measure
    from specmd.measurement.prediction import predict
    from specmd.runs.options import RunConfig
    from specmd.runs.pools import parse_capacity

    workload, header = source.workload(), source.header()
    for pace, evict, capacity in product(paces, ("lru", "lfu"), ("20%", "60%")):
        slots = parse_capacity(capacity, header.num_layers, header.num_experts, None)
        config = RunConfig(evict=evict, capacity=capacity, capacity_slots=slots)
        paced = settings.model_copy(update={"throttle": pace})
        measured = measure(workload, config, paced, bounds=False)
        yield predict(measured.run, measured.trace, profile)


def _tiny(rows: int) -> tuple[Any, dict[str, Tensor]]:
    """Return the embedded model and seeded prompts, the later rows padded on the left."""
    from specmd.models.tiny import load_tiny

    model, _ = load_tiny()
    ids = torch.randint(3, 2048, (rows, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        ids[row, :row], mask[row, :row] = 1, 0
    return model, {"input_ids": ids, "attention_mask": mask}


def _generate(model: Any, inputs: dict[str, Tensor], count: int = 8) -> tuple[Tensor, Tensor]:
    """Greedy tokens (B, T) and logits (steps, B, V), on the host."""
    place = model.get_input_embeddings().weight.device
    with torch.no_grad():
        result = model.generate(
            **{name: tensor.to(place) for name, tensor in inputs.items()},
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return result.sequences.cpu(), torch.stack(result.logits).cpu()
