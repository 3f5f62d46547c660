"""The laws of learning-rate schedulers, each written once and asked of every library.

A law looks at runs from outside: rates in force, and calls that a user makes. `Law.verdict` sorts what a library offers
into what keeps the law, what breaks it, with the evidence, and what has no such thing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from conformance_runs import Ask, Cycles, Library, NotApplicable, Offer, Run, TorchRun
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, SequentialLR

TOLERANCE = 1e-6
"""On rates, as a share of the base: a few roundings of float32, which JAX and Keras hand out; far below any defect."""


class Broken(AssertionError):  # noqa: N818 - it names the fact
    """A law is broken; the message is the evidence."""


@dataclass(frozen=True)
class Verdict:
    """What became of a law at one library.

    Args:
        kept: names of the schedulers that keep it.
        broken: name → evidence.
        lacking: name, or kind → why there is nothing to ask.
    """

    kept: tuple[str, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Law:
    """One law.

    Args:
        name: a few words; the row of the table.
        statement: one sentence.
        asks: the kinds of schedulers it is asked of, as `Library` names them.
        holds: (offer, kind) → None; raises `Broken` with the evidence, or `NotApplicable` with the reason.
    """

    name: str
    statement: str
    asks: tuple[str, ...]
    holds: Callable[[Any, str], None]

    def verdict(self, library: Library) -> Verdict:
        """Ask every scheduler of the library that the law is about."""
        kept, broken, lacking = [], {}, {}
        plain = {offer.name for offer in library.decays}
        with library.hushed():
            for kind in self.asks:
                offers = getattr(library, kind)
                if not offers:
                    lacking[kind] = library.lacks.get(kind, "none")
                for offer in offers:
                    name = f"{offer.name} + warmup" if kind == "warmups" and offer.name in plain else offer.name
                    try:
                        self.holds(offer, kind)
                    except Broken as evidence:
                        broken[name] = str(evidence)
                    except NotApplicable as reason:
                        lacking[name] = str(reason)
                    except Exception as error:  # whatever a scheduler raises breaks the law it is asked about
                        broken[name] = raising(error)
                    else:
                        kept.append(name)
        return Verdict(tuple(kept), broken, lacking)

    def check(self, library: Library) -> None:
        """Raise with all evidence if any scheduler breaks the law, or `NotApplicable` if there is none to ask."""
        verdict = self.verdict(library)
        if verdict.broken:
            raise Broken("; ".join(f"{name}: {evidence}" for name, evidence in verdict.broken.items()))
        if not verdict.kept:
            raise NotApplicable("; ".join(f"{name}: {reason}" for name, reason in verdict.lacking.items()))


# ---------------------------------------------------------------- what laws are made of


def raising(error: Exception) -> str:
    """An error as evidence: its type and the beginning of its message."""
    lines = str(error).strip().splitlines()
    return f"raises {type(error).__name__}" + (f": {lines[0][:70]}" if lines else "")


def trace(run: Run, updates: int, first: int = 0) -> list[float]:
    """Rates of the first group at the next `updates` + 1 positions, the present one first; an error is evidence.

    Args:
        first: the number of the present position, for the evidence.
    """
    rates = [run.rate]
    for update in range(first, first + updates):
        try:
            run.advance()
        except Exception as error:
            raise Broken(f"{raising(error)} (after update {update})") from error
        rates.append(run.rate)
    return rates


def trace_while_it_runs(run: Run, updates: int) -> list[float]:
    """As `trace`, cut off where the scheduler raises: that is another law's business."""
    rates = [run.rate]
    try:
        for _ in range(updates):
            run.advance()
            rates.append(run.rate)
    except Exception:  # whatever it is, the rates before it are what is judged
        return rates
    return rates


def same(rate: float, expected: float, base: float) -> bool:
    return abs(rate - expected) <= TOLERANCE * base


def expect(condition: bool, evidence: str) -> None:
    if not condition:
        raise Broken(evidence)


def asks(offer: Offer, kind: str, budgets: tuple[int, ...] = (20, 7)) -> Iterator[Ask]:
    """Budgets with and without a floor, with a warmup of a quarter where the kind has one."""
    for updates, floor in itertools.product(budgets, (0.0, 0.05) if offer.has_floor else (0.0,)):
        yield Ask(updates, warmup=updates // 4 if kind == "warmups" else 0, floor=floor)


def of_torch(offer: Offer, ask: Ask, reason: str) -> TorchRun:
    """A run with an optimizer and a scheduler object, or not applicable for this reason."""
    run = offer.run(ask)
    if not isinstance(run, TorchRun):
        raise NotApplicable(reason)
    return run


def goes_on(before: float, tail: list[float], at: int, total: int, end: float, base: float) -> None:
    """Whether a decay goes on from `before` without a jump and lands at update `total`.

    Args:
        before: rate before the change of the budget.
        tail: rates at update `at` and the updates after it.
        at: number of updates made.
        total: the new budget.
        end: where to land.
        base: base rate.
    """
    for update, (last, rate) in enumerate(itertools.pairwise([before, *tail]), start=at):
        expect(
            rate <= last + TOLERANCE * base, f"update {update}: climbs from {last:.4g} to {rate:.4g} (base {base:g})"
        )
    if total <= at:
        expect(
            same(tail[1], end, base), f"update {at + 1}: still at {tail[1]:.4g}, though {total} updates were allowed"
        )
        return
    # Twice the mean slope of what is left is more than any shape here has; a jump is ten times that.
    fall, most = before - min(tail[:2]), 2 * (before - end) / (total - at)
    expect(fall <= most + TOLERANCE * base, f"update {at + 1}: falls from {before:.4g} to {tail[1]:.4g}")
    reached = next((at + place for place, rate in enumerate(tail) if same(rate, end, base)), None)
    expect(
        reached == total,
        f"lands at update {reached} instead of {total}" if reached else f"does not land at update {total}",
    )


# ---------------------------------------------------------------- the curve


def lands(offer: Offer, kind: str) -> None:
    for ask in asks(offer, kind):
        total, base, end = ask.updates, ask.bases[0], offer.ends(ask)[0]
        rates = trace(offer.run(ask), 3 * total)
        early = next((update for update in range(total) if abs(rates[update] - end) <= 1e-9 * base), None)
        # A rise may pass the value of the end; landing early means staying there.
        if early is not None and early > total // 2:
            raise Broken(f"T = {total}: at the end already during update {early}, so the last update is wasted")
        for update in range(total, 3 * total + 1):
            expect(
                same(rates[update], end, base),
                f"T = {total}: {rates[update]:.4g} instead of {end:.4g} after update {update}",
            )


def first_update_moves(offer: Offer, kind: str) -> None:
    if kind == "warmups" and offer.start_is_asked:
        raise NotApplicable("the caller has to say where the warmup starts")
    for ask in asks(offer, kind):
        expect(offer.run(ask).rate > 0, f"T = {ask.updates}: the first update is made at rate 0")


def warmup_is_inside(offer: Offer, kind: str) -> None:
    for ask in asks(offer, kind, (20, 100)):
        rates = trace_while_it_runs(offer.run(ask), ask.updates + ask.warmup)
        end, base = offer.ends(ask)[0], ask.bases[0]
        reached = next((k for k, rate in enumerate(rates) if k > ask.warmup and same(rate, end, base)), None)
        asked = f"T = {ask.updates} with {ask.warmup} of warmup"
        expect(reached == ask.updates, f"{asked} lands after {reached or 'more'} updates")


def warmup_ends_at_the_peak(offer: Offer, kind: str) -> None:
    for ask in asks(offer, kind, (20, 100)):
        rates, base = trace_while_it_runs(offer.run(ask), ask.updates), ask.bases[0]
        for update in range(ask.warmup):
            expect(
                rates[update + 1] >= rates[update], f"T = {ask.updates}: falls at update {update + 1}, in the warmup"
            )
        at = rates[ask.warmup]
        expect(same(at, base, base), f"T = {ask.updates}: {at:.4g} instead of {base:g} where the warmup ends")


def peak_at_any_budget(offer: Offer, kind: str) -> None:
    for total in range(1 if kind == "decays" else 2, 51):
        ask = Ask(total, warmup=0 if kind == "decays" else max(1, total // 10))
        peak = max(trace_while_it_runs(offer.run(ask), total - 1))
        expect(same(peak, ask.bases[0], ask.bases[0]), f"T = {total}: at most {peak:.4g} instead of {ask.bases[0]:g}")


def one_cycle_peaks(offer: Offer, kind: str) -> None:
    missed = {}
    for total in range(1, 51):
        ask = Ask(total)
        try:
            share = max(trace(offer.run(ask), total - 1)) / ask.bases[0]
        except Broken as evidence:
            raise Broken(f"T = {total}: {evidence}") from evidence
        if share < 1 - TOLERANCE:
            missed[total] = f"{share:.3g} of the peak at T = {total}"
    some = ", ".join(missed[total] for total in (1, 2, 4, 5, 25) if total in missed)
    expect(not missed, f"missed at {len(missed)} of 50 budgets: {some}")


def within_bounds(offer: Offer, kind: str) -> None:
    for ask in asks(offer, kind):
        rates, base = trace_while_it_runs(offer.run(ask), 3 * ask.updates), ask.bases[0]
        low = offer.ends(ask)[0] if kind == "decays" else 0.0
        for update, rate in enumerate(rates):
            expect(rate <= base * (1 + TOLERANCE), f"T = {ask.updates}: {rate:.4g} at update {update}, above {base:g}")
            expect(rate >= low - TOLERANCE * base, f"T = {ask.updates}: {rate:.4g} at update {update}, below {low:.4g}")


RESTARTS = [(7, 3), (1, 3), (1, 10), (5, 3), (3, 7), (1, 2), (2, 2), (10, 2), (3, 2), (3, 5), (9, 4), (6, 6)]
"""(first cycle, growth), on the way to 3500 updates; float logarithms are known to miss the first five."""
EVEN = [(10, 490), (7, 700), (3, 600), (11, 1100)]
"""(cycle, budget) of equal cycles that fill the budget."""


def restarts_are_exact(offer: Offer, kind: str) -> None:
    wanted = [Cycles(updates=total, first=first) for first, total in EVEN]
    wanted += [Cycles(updates=3500, first=first, growth=growth) for first, growth in RESTARTS]
    missed, asked = [], 0
    for ask in wanted:
        try:
            run = offer.run(ask)
        except NotApplicable:
            continue
        asked += 1
        position = 0
        for start in ask.restarts():
            run.skip(start - position)
            position = start
            if not same(run.rate, ask.bases[0], ask.bases[0]):
                missed.append(f"({ask.first}, {ask.growth}) at {start}: {run.rate:.4g}")
    if not asked:
        raise NotApplicable("no cycles of these lengths")
    expect(not missed, f"{len(missed)} restarts miss the peak {Cycles().bases[0]:g}, as {', '.join(missed[:6])}")


def restarts_stay_above_the_floor(offer: Offer, kind: str) -> None:
    ask = Cycles(updates=60, first=5, peak_decay=0.5, floor=0.05)
    rates, low = trace(offer.run(ask), 59), offer.ends(ask)[0]
    worst = min(range(60), key=rates.__getitem__)
    expect(rates[worst] >= low - TOLERANCE * ask.bases[0], f"{rates[worst]:.4g} at update {worst}, below {low:.4g}")


def no_drift(offer: Offer, kind: str, updates: int = 20_000) -> None:
    import mpmath

    if offer.exact is None:
        raise NotApplicable("no formula is stated")
    floor = 0.05 if offer.has_floor else 0.0
    run, position = offer.run(Ask(updates, floor=floor, bases=(1.0,))), 0
    worst = [0.0, 0.0]
    with mpmath.workdps(40):
        for place in [1, *range(updates // 100, updates, updates // 100), updates - 1]:
            run.skip(place - position)
            position = place
            for late in (0, 1):  # one update late is wrong, but not drift
                exact = floor + (1 - mpmath.mpf(floor)) * offer.exact(mpmath.mpf(place - late) / updates)
                worst[late] = max(worst[late], float(abs(run.rate - exact)))
    expect(min(worst) <= offer.epsilon, f"off by {min(worst):.0e} of the peak within {updates:,} steps")


# ---------------------------------------------------------------- parameter groups


def groups_keep_their_own(offer: Offer, kind: str) -> None:
    for plain in asks(offer, kind, (20,)):
        ask = Ask(plain.updates, plain.warmup, plain.floor, bases=(0.1, 0.01))
        run, (first, second) = offer.run(ask), ask.bases
        start = run.rates()
        if plain.floor == 0:
            for update in range(ask.updates):
                high, low = run.rates()
                expect(
                    abs(low * first - high * second) <= TOLERANCE * first * second,
                    f"update {update}: groups with bases {first:g} and {second:g} run at {high:.4g} and {low:.4g}",
                )
                run.advance()
        else:
            run.advance(ask.updates)
        expect(kind != "decays" or same(start[1], second, first), f"the second group starts at {start[1]:.4g}")
        if kind == "decays":
            for group, (rate, end) in enumerate(zip(run.rates(), offer.ends(ask), strict=True)):
                expect(same(rate, end, ask.bases[group]), f"group {group} ends at {rate:.4g} instead of {end:.4g}")


def tensors_stay(offer: Offer, kind: str) -> None:
    ask = Ask(warmup=5 if kind == "warmups" else 0, in_tensors=True)
    run = of_torch(offer, ask, "rates are not held in groups")
    plain = offer.run(Ask(ask.updates, ask.warmup))
    before = run.optimizer.param_groups[0]["lr"]
    for update in range(5):
        rate = run.optimizer.param_groups[0]["lr"]
        expect(rate is before, f"before update {update} the rate is a {type(rate).__name__}, not the tensor given")
        expect(same(run.rate, plain.rate, ask.bases[0]), f"update {update}: {run.rate:.4g} instead of {plain.rate:.4g}")
        run.advance()
        plain.advance()


def a_new_group_is_scheduled(offer: Offer, kind: str) -> None:
    run, base = of_torch(offer, Ask(20), "groups are none of its business"), 0.05
    run.advance(10)
    run.add_group(base)
    trace(run, 5, first=10)
    middle = run.rates()[1]
    expect(not same(middle, base, base), f"the new group is still at {middle:g} five updates later")
    trace(run, 6, first=15)
    expect(same(run.rates()[1], offer.end * base, base), f"the new group ends at {run.rates()[1]:.4g}")


# ---------------------------------------------------------------- breaks


def interrupted(offer: Offer, kind: str) -> Iterator[tuple[Run, int]]:
    """Runs of 20 updates stopped after 3 and 12."""
    for stop in (3, 12):
        run = offer.run(Ask(20, warmup=5 if kind == "warmups" else 0))
        run.advance(stop)
        yield run, stop


def compare(run: Run, resumed: Run, stop: int) -> None:
    """Whether two runs have the same rates, bit for bit, from here to the end."""
    off = []
    for update in range(stop, 20):
        if run.rates() != resumed.rates():
            off.append(f"update {update} at {resumed.rate:.4g} instead of {run.rate:.4g}")
        run.advance()
        resumed.advance()
    expect(not off, f"stopped after {stop}: {len(off)} of {20 - stop} updates are off, " + "".join(off[:1]))


def resume_is_exact(offer: Offer, kind: str) -> None:
    for run, stop in interrupted(offer, kind):
        resumed = run.another()
        resumed.resume(run.state())
        compare(run, resumed, stop)


def resume_of_the_scheduler_is_exact(offer: Offer, kind: str) -> None:
    for run, stop in interrupted(offer, kind):
        resumed = run.another()
        if not isinstance(run, TorchRun) or not isinstance(resumed, TorchRun):
            raise NotApplicable("the position is in the optimizer's state")
        resumed.resume_scheduler(run.state())
        compare(run, resumed, stop)


def rebuilding_applies_once(offer: Offer, kind: str) -> None:
    for stop in (1, 4, 5, 10):
        run, rebuilt = (
            of_torch(offer, Ask(20, warmup=5 if kind == "warmups" else 0), "nothing to build") for _ in "ab"
        )
        run.advance(stop)
        rebuilt.advance(stop)
        rebuilt.rebuild()
        for update in range(stop, 16):
            expect(
                same(rebuilt.rate, run.rate, 1e-3),
                f"built again after {stop} updates: update {update} at {rebuilt.rate:.4g} instead of {run.rate:.4g}",
            )
            run.advance()
            rebuilt.advance()


def another_budget_is_refused(offer: Offer, kind: str) -> None:
    for total, other in ((20, 40), (40, 20)):
        run = offer.run(Ask(total))
        run.advance(10)
        state, loaded = run.state(), run.another(other)
        try:
            loaded.resume(state)
        except Exception:  # a refusal
            continue
        tail, end, base = trace(loaded, max(total, other) - 10, first=10), offer.ends(run.ask)[0], run.ask.bases[0]
        if same(tail[total - 10], end, base) and not same(tail[total - 11], end, base):
            raise Broken(f"T = {total} loaded into {other}: the old one wins, silently: lands at update {total}")
        try:
            goes_on(run.rate, tail[: other - 9], 10, other, end, base)
        except Broken as evidence:
            raise Broken(f"T = {total} loaded into {other}: {evidence}") from evidence


def changing_the_budget_is_continuous(offer: Offer, kind: str) -> None:
    if offer.rebudget is None:
        raise NotApplicable("no way to change the budget")
    evidence = []
    for total in (40, 14, 8):
        run = offer.run(Ask(20))
        run.advance(10)
        before, end, base = run.rate, offer.ends(run.ask)[0], run.ask.bases[0]
        try:
            offer.rebudget(run, total)
            # As far as the new end: whether it holds there is another law's question. Past its end already: far beyond.
            tail = trace(run, total - 10 if total > 10 else 50, first=10)
            highest = max(tail)
            expect(highest <= base * (1 + TOLERANCE), f"climbs to {highest / base:.3g} × base")
            goes_on(before, tail, 10, total, end, base)
        except Broken as broken:
            evidence.append(f"T = 20 → {total} after 10: {broken}")
    expect(not evidence, "; ".join(evidence))


def plateau_survives_a_break(offer: Any, kind: str) -> None:
    for losses in range(1, 4):
        run = offer.run()
        for _ in range(losses):
            run.observe(1.0)
        resumed = run.saved_and_resumed()
        for loss in range(losses, 8):
            expect(
                run.rate == resumed.rate,
                f"stopped after {losses} losses: at {resumed.rate:g} instead of {run.rate:g} after {loss}",
            )
            run.observe(1.0)
            resumed.observe(1.0)
        expect(run.rate != offer.run().rate, "the rule never lowers the rate")


# ---------------------------------------------------------------- what else calls it


def parts_apply_once(offer: Any, kind: str) -> None:
    run = offer.run()
    for update in range(offer.updates):
        expected = offer.expected(update)
        expect(same(run.rate, expected, 0.1), f"update {update}: {run.rate:.4g} instead of {expected:.4g}")
        try:
            run.advance()
        except Exception as error:
            raise Broken(f"{raising(error)} (after update {update})") from error


def only_updates_count(offer: Offer, kind: str) -> None:
    run = of_torch(offer, Ask(20), "the count is the optimizer's own")
    alone = run.another().curve(6)
    for update in range(6):
        expect(
            same(run.rate, alone[update], run.ask.bases[0]),
            f"four calls an update: update {update} runs at {run.rate:.4g} instead of {alone[update]:.4g}",
        )
        run.advance()
        for _ in range(3):
            run.call()


def the_optimizer_is_left_alone(offer: Offer, kind: str) -> None:
    run = of_torch(offer, Ask(20), "no optimizer is involved")
    expect("step" not in vars(run.optimizer), "optimizer.step is replaced by a wrapper")


def sequences_work_or_are_refused(offer: Offer, kind: str) -> None:
    run = of_torch(offer, Ask(20), "not for SequentialLR")
    if not isinstance(run.scheduler, LRScheduler):
        raise NotApplicable("not a torch LRScheduler")
    alone, inside = run.another().curve(21), run.another()
    constant = ConstantLR(inside.optimizer, factor=0.5, total_iters=100)
    second = inside.build(inside.optimizer)
    try:
        inside.scheduler = SequentialLR(inside.optimizer, [constant, second], milestones=[5])
    except (TypeError, ValueError):
        return
    rates = trace(inside, 25)
    for update, rate in enumerate(rates):
        expected = alone[update - 5] if update >= 5 else 0.05
        expect(
            same(rate, expected, 0.1), f"as the second part: update {update} at {rate:.4g} instead of {expected:.4g}"
        )


_ALL = ("decays", "steps", "warmups", "one_cycles")

LAWS = (
    Law(
        "lands at T",
        "The last value is reached after update T, not before, and held ever after: no rebound, no wrap, no error.",
        ("decays", "warmups", "one_cycles"),
        lands,
    ),
    Law(
        "first update moves",
        "The first update is not made at rate 0, unless that was asked for.",
        ("decays", "warmups"),
        first_update_moves,
    ),
    Law("warmup inside", "Warmup is part of the budget and does not lengthen it.", ("warmups",), warmup_is_inside),
    Law(
        "warmup meets the peak",
        "The decay takes over from the peak: the rate does not drop where the warmup ends.",
        ("warmups",),
        warmup_ends_at_the_peak,
    ),
    Law(
        "peak at any T",
        "The base rate is reached at every budget from T = 1 to 50, with a warmup of whole updates too.",
        ("decays", "warmups"),
        peak_at_any_budget,
    ),
    Law(
        "one cycle peaks",
        "A cycle whose peak lies at a share of the budget reaches it at every budget from T = 1 to 50.",
        ("one_cycles",),
        one_cycle_peaks,
    ),
    Law(
        "within bounds",
        "No rate is above the base, below the floor, or negative.",
        ("decays", "warmups", "one_cycles"),
        within_bounds,
    ),
    Law(
        "restarts are exact",
        "A warm restart is at the peak on its very update, over thousands of updates.",
        ("restarts",),
        restarts_are_exact,
    ),
    Law(
        "restarts above the floor",
        "Restarts with decaying peaks never fall below the floor.",
        ("restarts",),
        restarts_stay_above_the_floor,
    ),
    Law(
        "no drift",
        "Over 20,000 steps the rate is the formula's to 2.3e-16 of the peak (1.2e-7 where it is float32).",
        ("decays",),
        no_drift,
    ),
    Law(
        "groups keep their own",
        "Every parameter group keeps its own base rate and ends where it was asked to.",
        _ALL,
        groups_keep_their_own,
    ),
    Law("tensors stay", "A rate held in a tensor stays that tensor.", _ALL, tensors_stay),
    Law(
        "new group",
        "A group added in mid-run is scheduled: no error, and it is not frozen.",
        ("decays",),
        a_new_group_is_scheduled,
    ),
    Law("resume", "A run saved and loaded goes on as if it had never stopped, bit for bit.", _ALL, resume_is_exact),
    Law(
        "resume of the scheduler alone",
        "So it does if the scheduler's state alone is loaded, beside a fresh optimizer.",
        _ALL,
        resume_of_the_scheduler_is_exact,
    ),
    Law(
        "rebuilding",
        "A scheduler built again on the optimizer in use decays nothing twice.",
        _ALL,
        rebuilding_applies_once,
    ),
    Law(
        "another budget",
        "A state loaded into another budget is refused, or goes on and lands there: the old T does not win silently, "
        "and the rate does not jump.",
        ("decays",),
        another_budget_is_refused,
    ),
    Law(
        "changing the budget",
        "Changing the budget in mid-run leaves the rate where it is and lands at the new end; a budget already spent "
        "ends at once.",
        ("decays",),
        changing_the_budget_is_continuous,
    ),
    Law(
        "plateau",
        "Reduce-on-plateau keeps its counter over a break.",
        ("plateaus",),
        plateau_survives_a_break,
    ),
    Law("composition", "Schedules put together apply each factor once.", ("compositions",), parts_apply_once),
    Law(
        "only updates count",
        "Calls without an update of the optimizer do not advance: Accelerate makes one per process.",
        ("decays",),
        only_updates_count,
    ),
    Law("optimizer left alone", "`optimizer.step` is not replaced.", ("decays",), the_optimizer_is_left_alone),
    Law(
        "in SequentialLR",
        "Inside torch's SequentialLR it follows its own curve from the milestone on, or refuses.",
        ("decays", "steps"),
        sequences_work_or_are_refused,
    ),
)
"""The rows of the table."""
