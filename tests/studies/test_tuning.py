"""Tuning on made-up records: a curve of rate → metric stands in for training."""

import math
from dataclasses import replace

import pytest
from specs import make_spec

from glideslope.core.spec import parse_policy
from glideslope.studies.tuning import FACTOR, REACH, Choice, TunedCell, Tuning
from glideslope.trials.record import Cost, Evaluation, Record, Series

BASE = make_spec(rate=0.1)
REX, LINEAR = parse_policy("rex"), parse_policy("linear")


def made_up(spec, metric, status="finished"):
    """The record of a trial that validated at `metric`; None for one that diverged."""
    seen = () if metric is None else (Evaluation(spec.updates, 1.0, metric),)
    status = "diverged" if metric is None else status
    test = Evaluation(spec.updates, 1.0, metric) if status == "finished" else None
    return Record(
        spec.trial_id, spec.trajectory_id, status, Series((), (), ()), seen, test, (), Cost(1.0, 0.0, 1), {}, {}
    )


def step_of(spec):
    return round(math.log(spec.rate / BASE.rate, FACTOR))


def tune(curve, seeds=(1001,), candidates=(REX,), higher_is_better=False, reach=REACH):
    """The choice, and the steps of the grid that were run in order: curve(step, seed, policy) → metric or None."""
    tuning = Tuning(BASE, candidates, seeds, higher_is_better, reach)
    records, waves = {}, []
    while isinstance(missing := tuning.ask(records), list):
        assert missing, "asks for nothing, and yet does not choose"
        assert not {spec.trial_id for spec in missing} & set(records)
        waves.append(sorted({step_of(spec) for spec in missing}))
        assert len(waves) <= 2 * REACH + 2
        for spec in missing:
            assert {spec.seeds.init, spec.seeds.data, spec.seeds.noise} == {spec.seeds.init}
            records[spec.trial_id] = made_up(spec, curve(step_of(spec), spec.seeds.init, spec.policy))
    return missing, waves


def valley(bottom):
    return lambda step, seed, policy: float((step - bottom) ** 2)


class TestGrid:
    def test_starts_with_three_rates_a_factor_of_three_apart(self):
        specs = Tuning(BASE, (REX,), (1001,), False).ask({})
        assert [spec.rate for spec in specs] == pytest.approx([0.1 / 3, 0.1, 0.3], rel=1e-15)

    @pytest.mark.parametrize(
        ("bottom", "waves"),
        [
            (0, [[-1, 0, 1]]),
            (1, [[-1, 0, 1], [2]]),
            (3, [[-1, 0, 1], [2], [3], [4]]),
            (-1, [[-1, 0, 1], [-2]]),
            (-3, [[-1, 0, 1], [-2], [-3], [-4]]),
            (4, [[-1, 0, 1], [2], [3], [4], [5]]),
        ],
    )
    def test_grows_until_the_best_is_interior(self, bottom, waves):
        choice, seen = tune(valley(bottom))
        assert seen == waves
        assert choice.rate == pytest.approx(0.1 * 3.0**bottom, rel=1e-15)
        assert choice.score == 0.0
        assert not choice.at_limit

    @pytest.mark.parametrize(("bottom", "end"), [(5, 5), (50, 5), (-5, -5), (-50, -5)])
    def test_stops_at_the_hard_limit_and_says_so(self, bottom, end):
        choice, seen = tune(valley(bottom))
        assert choice.rate == pytest.approx(0.1 * 3.0**end, rel=1e-14)
        assert choice.at_limit
        assert max(abs(step) for wave in seen for step in wave) == REACH

    def test_a_held_rate_is_a_grid_of_one(self):
        choice, seen = tune(valley(3), reach=0)
        assert (choice.rate, choice.at_limit, seen) == (0.1, False, [[0]])

    def test_everything_tried_is_kept(self):
        choice, _ = tune(valley(1))
        assert [(rate / 0.1, score) for _, rate, score in choice.tried] == [
            (pytest.approx(3.0**step), float((step - 1) ** 2)) for step in (-1, 0, 1, 2)
        ]


class TestTies:
    def test_go_to_the_centre(self):
        choice, seen = tune(lambda step, seed, policy: 1.0)
        assert (choice.rate, seen) == (0.1, [[-1, 0, 1]])

    def test_a_tie_at_the_edge_is_no_reason_to_go_on(self):
        choice, seen = tune(lambda step, seed, policy: 1.0 if step >= 0 else 2.0)
        assert (choice.rate, seen) == (0.1, [[-1, 0, 1]])

    def test_the_first_candidate_wins(self):
        choice, _ = tune(lambda step, seed, policy: float(step**2), candidates=(REX, LINEAR))
        assert choice.policy == REX


class TestDivergence:
    def test_diverged_rates_never_win(self):
        choice, seen = tune(lambda step, seed, policy: None if step >= 0 else 5.0 - step)
        assert choice.rate == pytest.approx(0.1 / 3)
        assert seen == [[-1, 0, 1], [-2]]

    def test_where_nothing_converges_yet_the_grid_goes_down(self):
        choice, seen = tune(lambda step, seed, policy: None if step > -3 else float(step**2))
        assert choice.rate == pytest.approx(0.1 / 27)
        assert seen == [[-1, 0, 1], [-2], [-3], [-4]]

    def test_where_nothing_ever_converges_it_ends(self):
        choice, seen = tune(lambda step, seed, policy: None)
        assert choice.score == math.inf
        assert seen[-1] == [-REACH]

    @pytest.mark.parametrize("higher_is_better", [False, True])
    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_a_metric_that_is_no_number_never_wins(self, wrong, higher_is_better):
        def curve(step, seed, policy):
            return wrong if step in (-1, 1) else 1.0

        choice, _ = tune(curve, higher_is_better=higher_is_better)
        assert (choice.rate, choice.score) == (0.1, 1.0)

    def test_one_diverged_seed_is_enough(self):
        choice, _ = tune(
            lambda step, seed, policy: None if (step, seed) == (1, 1002) else float(-step), seeds=(1001, 1002)
        )
        assert choice.rate == pytest.approx(0.1)

    @pytest.mark.parametrize("status", ["failed", "diverged"])
    def test_a_trial_that_did_not_finish_never_wins_whatever_it_validated_at_before(self, status):
        tuning = Tuning(BASE, (REX,), (1001,), False)
        records = {spec.trial_id: made_up(spec, 1.0) for spec in tuning.ask({})}
        best = tuning.ask({})[1]
        records[best.trial_id] = made_up(best, 0.0, status)
        records |= {spec.trial_id: made_up(spec, 9.0) for spec in tuning.ask(records)}
        assert tuning.ask(records).rate != best.rate


class TestDirections:
    @pytest.mark.parametrize("bottom", [0, 2, -2, 9])
    def test_higher_is_better_is_the_mirror_image(self, bottom):
        down, waves_down = tune(valley(bottom))
        up, waves_up = tune(lambda step, seed, policy: -valley(bottom)(step, seed, policy), higher_is_better=True)
        assert (up.rate, up.at_limit, waves_up) == (down.rate, down.at_limit, waves_down)
        assert up.score == -down.score
        assert [score for *_, score in up.tried] == [-score for *_, score in down.tried]


class TestSeedsAndCandidates:
    def test_tuning_seeds_are_averaged(self):
        # Seed 1001 alone would choose step 1, and seed 1002 alone step -1; together they choose 0.
        curves = {1001: {-1: 9.0, 0: 2.0, 1: 0.0, 2: 9.0}, 1002: {-1: 0.0, 0: 2.0, 1: 9.0, -2: 9.0}}
        choice, _ = tune(lambda step, seed, policy: curves[seed][step], seeds=(1001, 1002))
        assert (choice.rate, choice.score) == (0.1, 2.0)

    def test_each_candidate_has_its_own_grid_and_the_best_wins(self):
        def curve(step, seed, policy):
            return float((step - 2) ** 2) if policy == LINEAR else 1.0 + step**2

        choice, waves = tune(curve, candidates=(REX, LINEAR))
        assert (choice.policy, choice.rate) == (LINEAR, pytest.approx(0.9))
        assert waves == [[-1, 0, 1], [2], [3]]
        assert [policy for policy, _, _ in choice.tried] == [REX] * 3 + [LINEAR] * 5

    def test_only_the_limit_of_the_winner_counts(self):
        def curve(step, seed, policy):
            return 100.0 - step if policy == REX else float(step**2)

        assert not tune(curve, candidates=(REX, LINEAR))[0].at_limit


class TestPurity:
    def test_asking_changes_nothing_and_other_records_do_not_matter(self):
        tuning = Tuning(BASE, (REX,), (1001,), False)
        records = {spec.trial_id: made_up(spec, 1.0 + abs(step_of(spec))) for spec in tuning.ask({})}
        stranger = replace(BASE, updates=99)
        more = {stranger.trial_id: made_up(stranger, -5.0), **records}
        before = dict(more)
        assert tuning.ask(records) == tuning.ask(more) == tuning.ask(more)
        assert more == before

    def test_a_partly_known_grid_asks_for_the_rest(self):
        tuning = Tuning(BASE, (REX,), (1001, 1002), False)
        wanted = tuning.ask({})
        assert len(wanted) == 6
        records = {spec.trial_id: made_up(spec, 1.0) for spec in wanted[:4]}
        assert tuning.ask(records) == wanted[4:]

    def test_asked_finds_what_was_tried(self):
        tuning = Tuning(BASE, (REX,), (1001,), False)
        records = {}
        while isinstance(missing := tuning.ask(records), list):
            records |= {spec.trial_id: made_up(spec, float((step_of(spec) - 2) ** 2)) for spec in missing}
        assert {spec.trial_id for spec in tuning.asked(records)} == set(records)


class TestTunedCell:
    def test_tunes_then_reports_the_choice_on_fresh_seeds(self):
        cell = TunedCell(Tuning(BASE, (REX,), (1001,), False), (1, 2, 3))
        records = {}
        wanted = cell.next_specs(records)
        while wanted[0].seeds.init == 1001:
            records |= {spec.trial_id: made_up(spec, float((step_of(spec) - 1) ** 2)) for spec in wanted}
            wanted = cell.next_specs(records)
        assert [spec.seeds.init for spec in wanted] == [1, 2, 3]
        assert [spec.rate for spec in wanted] == pytest.approx([0.3] * 3)
        records |= {spec.trial_id: made_up(spec, 0.0) for spec in wanted[:2]}
        assert cell.next_specs(records) == wanted[2:]
        records |= {spec.trial_id: made_up(spec, 0.0) for spec in wanted[2:]}
        assert cell.next_specs(records) == []
        assert isinstance(cell.tuning.ask(records), Choice)
