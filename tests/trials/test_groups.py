"""Groups: who may run with whom, how much a worker takes, and what becomes of trials that workers die at."""

from dataclasses import replace

import pytest
from specs import make_spec

from glideslope.core.budget import Epochs
from glideslope.core.plan import for_budget
from glideslope.core.spec import parse_policy
from glideslope.trials.executors.groups import LEAST_MEMBERS, MOST_MEMBERS, Groups

DENSE = make_spec("tiny_tasks:Regression")
LONE = make_spec("tiny_tasks:Regression", optimizer="torch.optim:Rprop")


def many(spec, count, updates=10):
    return [replace(spec, rate=1.0 + index, updates=updates) for index in range(count)]


def groups_of(*specs):
    groups = Groups()
    for spec in specs:
        groups.push(spec)
    return groups


def taken(groups, num_workers=1, **options):
    """All orders until the queue is empty, as (length, together)."""
    orders = []
    while (order := groups.take(num_workers, **options)).specs:
        orders.append((len(order.specs), order.together))
    assert len(groups) == 0
    return orders


class TestOrders:
    def test_what_can_run_together_is_ordered_together_and_the_rest_one_by_one(self):
        assert taken(groups_of(*many(DENSE, 12), *many(LONE, 3))) == [(12, True), *[(1, False)] * 3]

    def test_populations_end_at_a_workers_share_and_at_the_most(self):
        assert taken(groups_of(*many(DENSE, MOST_MEMBERS + 5))) == [(MOST_MEMBERS, True), (5, True)]
        assert taken(groups_of(*many(DENSE, 40)), num_workers=4)[0] == (10, True)
        assert taken(groups_of(*many(DENSE, 40)), num_workers=40)[0] == (LEAST_MEMBERS, True)

    def test_the_group_with_most_updates_comes_first_and_in_it_the_longest(self):
        other = replace(DENSE, eval_every=3)
        groups = groups_of(*many(DENSE, 9, updates=10), *many(other, 3, updates=20), *many(other, 2, updates=30))
        assert [spec.updates for spec in groups.take(1).specs] == [30, 30, 20, 20, 20]

    def test_a_preamble_counts_as_work(self):
        preamble = for_budget(parse_policy("rex + preamble(100ep, 0, 0.1)"), Epochs(1, updates_per_epoch=1))
        warmed = replace(LONE, updates=10, policy=preamble)
        groups = groups_of(*many(LONE, 2, updates=50), warmed, *many(DENSE, 3, updates=35))
        assert [spec.last_update for spec in groups.take(1).specs] == [110]
        assert groups.take(1).together  # 105 updates of three together, against 100 of two alone

    def test_trials_known_to_be_short_are_ordered_several_at_a_time(self):
        short = many(LONE, 12, updates=10)
        assert taken(groups_of(*short), seconds=lambda spec: 0.002 * spec.updates) == [
            (5, False),
            (5, False),
            (2, False),
        ]
        assert taken(groups_of(*short), seconds=lambda spec: 0.2 * spec.updates) == [(1, False)] * 12
        assert taken(groups_of(*short), num_workers=6, seconds=lambda spec: 0.0)[0] == (2, False)
        assert taken(groups_of(*many(LONE, 70)), seconds=lambda spec: 0.0) == [(MOST_MEMBERS, False), (6, False)]

    def test_an_empty_queue(self):
        groups = groups_of(*many(DENSE, 3), *many(LONE, 2))
        groups.clear()
        assert len(groups) == 0
        assert groups.take(1).specs == []

    def test_trials_that_were_parted_stay_apart_and_so_do_those_that_come_later(self):
        groups = groups_of(*many(DENSE, 3))
        groups.part(groups.take(1).specs)
        for spec in many(DENSE, 2, updates=7):
            groups.push(spec)
        assert taken(groups) == [(1, False)] * 5


class TestDeaths:
    @pytest.mark.parametrize(("spec", "count"), [(DENSE, 3), (LONE, 1)])
    def test_the_first_is_forgiven_the_second_is_not(self, spec, count):
        groups = groups_of(*many(spec, count))
        assert groups.bury(groups.take(1).specs) == []
        order = groups.take(1)
        assert (len(order.specs), order.together) == (1, False)
        assert groups.bury(order.specs) == order.specs
        assert len(groups) == count - 1

    def test_one_that_a_worker_died_at_meets_nobody_again_among_short_ones(self):
        specs = many(LONE, 9)
        groups = groups_of(*specs)
        first = groups.take(1).specs
        groups.bury(first)
        orders = []
        while (order := groups.take(1, lambda spec: 0.0)).specs:
            orders.append(order.specs)
        assert first in orders
        assert sum(map(len, orders)) == 9

    def test_nor_in_a_population_when_it_is_tried_again(self):
        first, *others = many(DENSE, 4)
        groups = groups_of(first)
        groups.bury(groups.take(1).specs)
        groups.take(1)
        for spec in (first, *others):
            groups.push(spec)
        assert taken(groups) == [(3, True), (1, False)]
