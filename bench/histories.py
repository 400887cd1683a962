"""Large valid histories for the benches, written event by event as a run writes them; same seed, same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from fixtures.history.events import Event
from fixtures.history.shapes import (
    Activity,
    Away,
    Counter,
    Coverage,
    FaultPhase,
    Fetch,
    Freshness,
    Identity,
    IngestionRun,
    Operation,
    Phase,
    Quote,
    Sample,
    Shape,
    Stored,
    Surface,
    data_of,
)

Timed = Iterator[tuple[float, Shape]]

FEEDS = ("candles", "orderbook", "trades", "funding", "open_interest", "mark_index", "ticker")
PAIRS = tuple(f"PAIR{number}-USDT" for number in range(8))
THRESHOLD_S = 120.0


def write(path: Path, timed: Timed) -> int:
    """Write events to a history file; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, (at, shape) in enumerate(timed, 1):
            event = Event(
                shape.KIND, shape.NAME or "host-down", "bench", at, at, "bench", data_of(shape), "w", count
            )
            file.write(json.dumps(event.to_dict(), separators=(",", ":")) + "\n")
    return count


def windows(events: int) -> Timed:
    """About so many ``IngestionRun``: each run sighted once while it runs and once ended, seven feeds a cycle."""
    cycles = events // (2 * len(FEEDS))
    for cycle in range(cycles):
        start = cycle * 60.0
        for sighting in range(2):
            for feed in FEEDS:
                ended = sighting == 1
                yield start + 30 * sighting, IngestionRun(
                    f"{feed}-{cycle}", "bingx", None, feed, "schedule", "succeeded" if ended else "running",
                    start, start + 20 if ended else None, 5 if ended else 0, 0, None, start + 30 * sighting, "worker-1",
                )  # fmt: skip
    for cycle in range(cycles // 100):
        yield cycles * 60.0, Fetch(cycle * 60.0 + 1, 0.1, f"peer#{cycle}", "/klines", PAIRS[0], 200)
    for what in ("runs", "exchange"):
        yield cycles * 60.0, Coverage(what, 0.0, cycles * 60.0)


def registers(operations: int, keys: int, clients: int, seed: int = 7) -> Timed:
    """A register per key that works: each operation takes effect at one instant between its two events.

    ``clients`` operations of a key overlap on average; two writes in a hundred are never acknowledged, and half of
    those take effect.
    """
    chance = random.Random(seed)  # noqa: S311  # no secret
    told: list[tuple[float, int, Operation]] = []
    held: dict[str, str | None] = {}
    for number in range(operations):
        key = f"k{number % keys}"
        at = number / operations * 1000.0
        half = 1000.0 / operations * keys * clients / 2
        begin, end = at - chance.random() * half, at + chance.random() * half
        phase: Phase = "ok"
        op, value = f"o{number}", held.get(key)
        if chance.random() < 0.5:
            value = f"{chance.getrandbits(256):064x}"
            phase = "ok" if chance.random() > 0.02 else "unknown"
            told.append((begin, number, Operation(op, "invoke", "write", "row", key, value, 64)))
            told.append((end, number, Operation(op, phase, "write", "row", key, value, 64)))
            if phase == "ok" or chance.random() < 0.5:
                held[key] = value
        else:
            told.append((begin, number, Operation(op, "invoke", "read", "row", key, None)))
            told.append((end, number, Operation(op, "ok", "read", "row", key, value)))
    for at, _, operation in sorted(told, key=lambda one: one[:2]):
        yield at, operation


def durability(writes: int) -> Timed:
    """So many writes of keys of their own, each read back at the end, while three components go away in turn."""
    components = ("convex", "postgres", "objectstore")
    for store in components:
        yield 0.0, Identity(store, "id")
    yield 1.0, Operation("s", "invoke", "write", "file", "s", "5" * 64, 9, True)
    yield 2.0, Operation("s", "ok", "write", "file", "s", "5" * 64, 9, True)
    for number, component in enumerate(components):
        yield 3.0, Away(component, 100.0 + 100 * number, 110.0 + 100 * number)
    for number in range(writes):
        at = 10.0 + 900.0 * number / writes
        away = at % 100 < 10 and 100 <= at < 400
        sha = f"{number:064x}"
        written = Operation(f"w{number}", "invoke", "write", "file", f"k{number}", sha, 64)
        yield at, written
        yield (
            at + 0.0001,
            Operation(written.op, "fail" if away else "ok", "write", "file", written.key, sha, 64),
        )
    for number in range(-1, writes):
        key, sha = ("s", "5" * 64) if number < 0 else (f"k{number}", f"{number:064x}")
        yield 2000.0, Operation(f"r{number}", "invoke", "read", "file", key, None)
        yield 2000.5, Operation(f"r{number}", "ok", "read", "file", key, sha, 64)
    for store in components:
        yield 3000.0, Identity(store, "id")


def samples(count: int) -> Timed:
    """So many samples of one service, ten a second, with two outages; a fault in the middle, healed at once."""
    for number in range(count):
        at = number / 10
        yield at, Sample("api", at, number % (count // 2 + 1) != 7)
        if number == count // 2:
            for phase in ("intent", "applied", "undone", "verified"):
                yield at, FaultPhase("f", phase)
    for side in range(2):
        for host in range(16):
            yield count / 10, Surface("after" if side else "before", f"h{host}", "rules", "none")


def activities(count: int) -> Timed:
    """So many intervals, one after the other, by four witnesses on four clocks."""
    for witness in ("tasks", "processes", "store", "exchange"):
        yield 0.0, Coverage(witness, 0.0, 10.0 * count)
        for number in range(count // 4):
            start = number * 10.0
            yield start, Activity(witness, f"a{number}", start, start + 9, True, f"c{number % 4}", 0.01)


def freshness(count: int) -> Timed:
    """About so many answers of two endpoints about eight pairs and seven feeds."""
    for number in range(count // (2 * len(PAIRS) * len(FEEDS))):
        at = number * 10.0
        for endpoint in ("/data-sources/status", "store"):
            for pair in PAIRS:
                for feed in FEEDS:
                    yield at, Freshness(number, endpoint, pair, feed, at, True, at - 1, "ok")
                if endpoint == "store":
                    yield at, Quote(pair, "ticker", number * 10_000, "1.0")
                    yield at, Stored(pair, "ticker", number * 10_000, "1.0")


def counters(count: int) -> Timed:
    """So many readings of five packet counters."""
    for number in range(count // 5):
        for source in ("exit1", "exit2", "wrong", "other", "legacy"):
            yield (
                number * 1.0,
                Counter("inet", source, "boot", number if source == "exit1" else 0, number * 1.0),
            )
