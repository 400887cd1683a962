from __future__ import annotations

import threading

from fixtures.observe.recording import InMemory
from fixtures.observe.sampling import Sampler


def test_a_look_that_fails_is_said_once_and_the_next_one_is_taken() -> None:
    record, looks, enough = InMemory(), [0], threading.Event()

    def look() -> None:
        looks[0] += 1
        if looks[0] in (2, 3, 5):
            raise OSError("away")
        if looks[0] >= 7:
            enough.set()

    sampler = Sampler("x", 0.001, look, record)
    sampler.start()
    assert enough.wait(10)
    sampler.stop()
    assert [one.data["error"] for one in record.events] == ["OSError: away"] * 2
    seen = looks[0]
    sampler.stop()
    assert looks[0] == seen
