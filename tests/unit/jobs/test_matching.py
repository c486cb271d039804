"""The order in which the jobs of several queues are next."""

from __future__ import annotations

from hansa.jobs.matching import next_numbers


def test_the_jobs_of_several_queues_are_next_by_rank_and_age() -> None:
    assert next_numbers([[(5, 1), (5, 4)], [(4, 3), (5, 2)], []], 10) == [3, 1, 2, 4]
    assert next_numbers([[(5, 1), (5, 4)], [(4, 3), (5, 2)]], 2) == [3, 1]
    assert next_numbers([], 3) == []


def test_the_order_ends_where_a_queue_may_have_more_that_nobody_has_read() -> None:
    many = [(5, number) for number in range(16)]
    assert next_numbers([many, [(5, 100), (6, 101)]], 50) == list(range(16))  # 16 of the first may come before 100
    assert next_numbers([many, [(4, 100), (6, 101)]], 50) == [100, *range(16)]
    assert next_numbers([many[:-1], [(5, 100)]], 50) == [*range(15), 100]  # the first has no more
