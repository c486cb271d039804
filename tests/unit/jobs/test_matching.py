"""The order in which the jobs of several queues are next."""

from __future__ import annotations

from hansa.jobs.matching import next_numbers


def test_the_jobs_of_several_queues_are_next_by_rank_and_age() -> None:
    assert next_numbers([[(5, 1), (5, 4)], [(4, 3), (5, 2)], []], 10, 16) == [3, 1, 2, 4]
    assert next_numbers([[(5, 1), (5, 4)], [(4, 3), (5, 2)]], 2, 16) == [3, 1]
    assert next_numbers([], 3, 16) == []


def test_the_order_ends_where_a_queue_may_have_more_that_nobody_has_read() -> None:
    many = [(5, number) for number in range(16)]
    assert next_numbers([many, [(5, 100), (6, 101)]], 50, 16) == list(range(16))  # 16 of the first may come before 100
    assert next_numbers([many, [(4, 100), (6, 101)]], 50, 16) == [100, *range(16)]
    assert next_numbers([many[:-1], [(5, 100)]], 50, 16) == [*range(15), 100]  # the first has no more


def test_a_short_queue_that_is_known_to_its_end_does_not_end_the_order() -> None:
    assert next_numbers([[(5, n) for n in range(20)], [(5, 100)]], 50, 128) == [*range(20), 100]
