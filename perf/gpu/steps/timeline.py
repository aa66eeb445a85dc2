"""A timeline of one load to the GPU: the file for Perfetto, and what it says about overlap.

While the GPU's copies run, engines have to read later parts. So copies have to be under way during
most of the load, and reading has to overlap them.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import step

Spans = list[tuple[float, float]]


def union(spans: Spans) -> Spans:
    """The same times, without overlaps."""
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def length(spans: Spans) -> float:
    """The time of spans that do not overlap."""
    return sum(end - start for start, end in spans)


def common(these: Spans, those: Spans) -> float:
    """The time that both have in common."""
    return length(these) + length(those) - length(union(these + those))


def load(path: Path) -> int:
    """Loads with a trace, and checks that it has the load."""
    settings = step.SETTINGS
    files = settings["tmpfs_files"]
    command = [settings["ringload"], "load", *files, "--device", step.DEVICE]
    ended = step.run(*command, "--json", "--trace", str(path))
    if ended.returncode != 0:
        raise AssertionError(ended.stderr.strip())
    report = json.loads(ended.stdout)
    events = json.loads(path.read_text())["traceEvents"]
    spans = [event for event in events if event.get("ph") == "X"]
    stages = {
        stage: union(
            [(one["ts"], one["ts"] + one["dur"]) for one in spans if one.get("cat") == stage]
        )
        for stage in ("reading", "copying")
    }
    if not all(stages.values()):
        raise AssertionError("the trace has no reads, or no copies")
    copied = length(stages["copying"])
    figures = step.Figures()
    figures.add("timeline: the load", "s", report["seconds"])
    figures.add("timeline: copies under way / the load", "", copied / 1e6 / report["seconds"])
    both = common(stages["reading"], stages["copying"])
    figures.add("timeline: reads beside copies / copies", "", both / copied)
    return len(spans)


def main() -> None:
    """Makes the load, and keeps the timeline."""
    path = step.WORK / "timeline.json"
    if step.check("a timeline of a load", lambda: load(path)):
        out = Path(step.SETTINGS["out"]) / "timeline.json.gz"
        with path.open("rb") as text, gzip.open(out, "wb") as packed:
            shutil.copyfileobj(text, packed)


main()
