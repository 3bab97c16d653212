from __future__ import annotations

import threading

from holdfast.containers.alarm import Alarm


def test_calls_come_in_time_and_those_given_up_do_not() -> None:
    alarm, made, done = Alarm(), list[int](), threading.Event()
    numbers = [alarm.after(0.01 * place, lambda place=place: made.append(place)) for place in range(20)]  # type: ignore[misc]
    alarm.after(0.3, done.set)
    for number in numbers[5:15]:
        alarm.give_up(number)
    alarm.give_up(-1)
    assert done.wait(10)
    assert made == [*range(5), *range(15, 20)]
    alarm.give_up(numbers[0])
    again = threading.Event()
    alarm.after(0, again.set)
    assert again.wait(10)
    alarm.close()
    alarm.after(0, made.clear)
    assert made


def test_what_is_given_up_is_not_kept() -> None:
    alarm = Alarm()
    for _ in range(1000):
        alarm.give_up(alarm.after(1000, print))
    assert len(alarm._planned) + len(alarm._given_up) < 10
    alarm.close()
