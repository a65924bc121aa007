"""Feed graphopt files that nobody wrote: mutated bytes, mutated models, random graphs.

Each input is made from the seed and its number alone and tried in a process of its own with limits: every command must
end with a clear error or a result, within 20 s and 2 GB; a model that onnxruntime runs must compute the same after it
was saved, and after it was fused, with the verifier off and on; the verifier must find what a rule breaks; the input
stays as it was and nothing outside of its folder is read.

    python tools/fuzz.py --seconds 600 --keep findings                # all three kinds in turn
    python tools/fuzz.py protos --seed 3 --count 500
    python tools/fuzz.py protos --seed 3 --only 417                   # one input again; --write FOLDER to look at it

With --keep the first inputs of each finding are kept, the first one shrunk, with the command that makes it again. Exit
code 1: something was found.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import click
from fuzzing.bytes import mutated as mutated_bytes
from fuzzing.case import Case, Finding, Outcome
from fuzzing.graphs import random_graph
from fuzzing.protos import mutated as mutated_proto
from fuzzing.seeds import Pool, write_pool
from fuzzing.shrink import shrunk
from fuzzing.worker import Worker

KINDS = ("bytes", "protos", "graphs")
TARGETS = ("ort-cpu", "ort-cpu", "onnx")
_KEPT = 3
"""Inputs that are kept of one finding."""
_SHRINKING = 90.0
"""Seconds."""


def made(kind: str, seed: int, number: int, pool: Pool, verified: float = 0.5) -> Case:
    """The input of that number, the same on every machine that has the same seeds; a share is `verified` as well."""
    rng = Random(f"{kind}/{seed}/{number}")
    if kind == "graphs":
        case = random_graph(rng, pool)
    else:
        begin = pool.draw(rng)
        if kind == "bytes":
            case = Case(mutated_bytes(begin.model, pool.draw(rng).model, rng), begin.name, begin.files, begin.feeds)
        else:
            model, files, origin = mutated_proto(begin.model, rng)
            case = Case(model, f"{begin.name} {origin}", {**begin.files, **files}, begin.feeds)
    flags = ["--target", rng.choice(TARGETS)]
    for flag in ("--emit-functions", "--keep-opset", "--external-data=always", "--external-data=never"):
        if rng.random() < 0.08:
            flags.append(flag)
    also = [name for name, share in (("quantize", 0.03), ("explain", 0.05), ("verify", 0.05)) if rng.random() < share]
    return replace(case, flags=tuple(flags), also=tuple(also), verified=rng.random() < verified)


class Tally:
    """What was tried and found so far; keeps cases in a folder."""

    def __init__(self, keep: Path | None) -> None:
        self.keep = keep
        self.tried: Counter[str] = Counter()
        self.facts: Counter[tuple[str, str]] = Counter()
        self.found: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.start = time.monotonic()

    def add(self, kind: str, outcome: Outcome, command: str) -> list[Finding]:
        """Counts an outcome; returns the findings that were not yet kept often enough."""
        self.tried[kind] += 1
        self.facts.update((kind, fact) for fact in outcome.facts)
        for fact in outcome.facts:
            self.first.setdefault(fact, command)
        for finding in outcome.findings:
            self.found[finding.sign] += 1
            self.first.setdefault(finding.sign, command)
        return [finding for finding in outcome.findings if self.found[finding.sign] <= _KEPT]

    def write(self) -> None:
        """Writes the tally where findings are kept, once in a while."""
        if self.keep is not None and sum(self.tried.values()) % 50 == 0:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / "tally.txt").write_text("\n".join([*self.lines(), ""]))

    def lines(self) -> Iterator[str]:
        seconds = time.monotonic() - self.start
        for kind, count in self.tried.items():
            facts = {fact: n for (of, fact), n in sorted(self.facts.items()) if of == kind and fact[:5] != "rule "}
            yield f"{kind}: {count} inputs; {json.dumps(facts)}"
        rules = {fact for _, fact in self.facts if fact.startswith("rule ")}
        tried = sum(self.tried.values())
        yield f"{tried} inputs in {seconds:.0f} s, {len(rules)} rules fired, {len(self.found)} kinds of findings"
        refused = sorted({fact for _, fact in self.facts if fact.startswith("refused though")})
        yield from (f"  {fact}, as {self.first[fact]}" for fact in refused)
        for sign, count in self.found.most_common():
            yield f"  {count:5} × {sign}\n          {self.first[sign]}"


def keep(folder: Path, finding: Finding, case: Case, command: str) -> None:
    """Writes a case, what was found and the command that makes it again into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(case.model)
    for name, data in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    lines = (finding.sign, case.origin, f"flags: {' '.join(case.flags)}", command, "", finding.detail, "")
    (folder / "finding.txt").write_text("\n".join(lines))


def shown(worker: Worker, case: Case, finding: Finding) -> Case:
    """The smallest case that is found to show the same."""

    def shows(candidate: Case) -> bool:
        return any(one.sign == finding.sign for one in worker.try_case(candidate).findings)

    return shrunk(case, shows, _SHRINKING)


@click.command(help=__doc__)
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--seed", default=0, help="All that is random follows from it.")
@click.option("--seconds", type=float, help="How long; default: for ever.")
@click.option("--count", type=int, help="How many inputs.")
@click.option("--begin", default=0, help="The number of the first input.")
@click.option("--only", type=int, help="One input, by its number.")
@click.option("--verified", default=0.5, help="The share of inputs that are fused with the verifier on as well.")
@click.option("--keep", "folder", type=click.Path(path_type=Path), help="Where findings are kept.")
@click.option("--write", type=click.Path(path_type=Path), help="Where the inputs themselves are written.")
@click.option("--pool", type=click.Path(path_type=Path), help="The folder of models to begin with, made if needed.")
@click.option("--exports", multiple=True, type=click.Path(path_type=Path), help="Folders of exports for a new pool.")
def main(
    kinds: Sequence[str],
    seed: int,
    seconds: float | None,
    count: int | None,
    begin: int,
    only: int | None,
    verified: float,
    folder: Path | None,
    write: Path | None,
    pool: Path | None,
    exports: Sequence[Path],
) -> None:
    kinds = kinds or KINDS
    numbers: Iterator[int] = iter([only]) if only is not None else itertools.count(begin)
    if count is not None:
        numbers = itertools.islice(numbers, count)
    tally = Tally(folder)
    with tempfile.TemporaryDirectory() as scratch, Worker() as worker:
        seeds = write_pool(pool or Path(scratch) / "pool", exports)
        where = f" --pool {pool}" if pool else ""
        try:
            for number, kind in ((number, kind) for number in numbers for kind in kinds):
                if seconds is not None and time.monotonic() - tally.start > seconds:
                    break
                case = made(kind, seed, number, seeds, verified)
                command = f"python tools/fuzz.py {kind} --seed {seed} --only {number}{where}"
                if write is not None:
                    keep(write, Finding(""), case, command)
                tally.write()
                for finding in tally.add(kind, worker.try_case(case), command):
                    click.echo(f"{command}\n    {finding.sign}\n    {case.origin}", err=True)
                    if only is not None:
                        click.echo(finding.detail, err=True)
                    if folder is not None:
                        kept = folder / f"{kind}-{seed}-{number}-{len(tally.found)}"
                        keep(kept, finding, case, command)
                        if tally.found[finding.sign] == 1:
                            keep(kept / "small", finding, shown(worker, case, finding), command)
        except KeyboardInterrupt:
            pass
    click.echo("\n".join(tally.lines()))
    sys.exit(1 if tally.found else 0)


if __name__ == "__main__":
    main()
