"""A bar where there is a terminal, a line a minute elsewhere, and tasks that run beside each other."""

from __future__ import annotations

import time

import pytest

from pipeline.progress import progress, side_by_side


def test_without_a_terminal_there_is_a_line_a_minute_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress("drawing", total=100, done=10) as advance:
        for _ in range(90):
            now[0] += 2.0
            advance(1, "a shard")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "drawing: 40 of 100 images, 0.5/s, 2 min left a shard",
        "drawing: 70 of 100 images, 0.5/s, 1 min left a shard",
        "drawing: 100 of 100 images, 0.5/s, 0 min left a shard",
    ]


def test_a_later_task_may_ask_for_what_an_earlier_one_found() -> None:
    with side_by_side("adding", "sums") as submit:
        parts = [submit(pow, n, 2) for n in range(50)]
        whole = submit(lambda: sum(part.result() for part in parts))
    assert whole.result() == 49 * 50 * 99 // 6


def test_what_a_task_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), side_by_side("dividing", "parts") as submit:
        submit(divmod, 1, 0)
        submit(divmod, 1, 1)


def test_an_interruption_does_not_wait_for_what_has_not_begun() -> None:
    begun: list[int] = []

    def task(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt), side_by_side("waiting", "tasks") as submit:
        for number in range(200):
            submit(task, number)
        raise KeyboardInterrupt
    assert len(begun) < 100
