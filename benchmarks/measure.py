"""What every benchmark shares: pairs in alternating order, their ratios, CPU seconds, the machine, a report."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """One measured run: ``value`` in the benchmark's unit, CPU seconds of all processes involved, units done."""

    value: float
    cpu_seconds: float = 0.0
    units: float = 1.0


@dataclass(frozen=True)
class Pair:
    ours: Run
    baseline: Run

    @property
    def ratio(self) -> float:
        return self.ours.value / self.baseline.value


@dataclass
class Report:
    """A benchmark's outcome; ``aim`` is what the ratio should reach, ``better`` whether more of it is better."""

    name: str
    unit: str
    aim: str
    better: str  # higher | lower
    pairs: list[Pair] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def show(self) -> None:
        """Print the figures and write them to benchmarks/results/<name>.json."""
        ratios = sorted(pair.ratio for pair in self.pairs)
        ours, baseline = [pair.ours for pair in self.pairs], [pair.baseline for pair in self.pairs]
        print(f"{self.name}: {len(self.pairs)} pairs ({self.better} is better)")
        for label, runs in (("ours", ours), ("baseline", baseline)):
            values = [run.value for run in runs]
            cpu = statistics.median(run.cpu_seconds / run.units for run in runs)
            said = f"; {cpu * 1000:.2f} CPU-ms per unit" if cpu else ""  # not every benchmark counts it
            print(
                f"  {label:<9} median {statistics.median(values):10.2f} {self.unit}"
                f"  (min {min(values):.2f}, max {max(values):.2f}{said})"
            )
        print(f"  ratio     median {statistics.median(ratios):10.2f}  (min {ratios[0]:.2f}, max {ratios[-1]:.2f})")
        print(f"  aim       {self.aim}")
        for name, value in self.extra.items():
            print(f"  {name}: {value}")
        RESULTS.mkdir(exist_ok=True)
        content = asdict(self) | {"ratio": statistics.median(ratios), "ratios": ratios, "machine": machine()}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=2, default=str))


def alternate(pairs: int, ours: Callable[[], Run], baseline: Callable[[], Run], warm_up: bool = True) -> list[Pair]:
    """Run both ``pairs`` times, ours first in every other pair, after one run of each that does not count."""
    if warm_up:
        baseline()
        ours()
    measured = []
    for number in range(pairs):
        if number % 2:
            other, own = baseline(), ours()
        else:
            own, other = ours(), baseline()
        measured.append(Pair(own, other))
    return measured


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and everything below them so far, of those that have ended too."""
    total = 0.0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for member in family:
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine() -> dict[str, Any]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
