"""Table: a small frozen table that prints as text, HTML and JSON."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from glideslope.report.panel import Estimate

TIED_MARK = "*"
EMPTY = "-"


FLAGS = {
    "at_limit": ("†", "tuned rate at a hard limit of its grid"),
    "noisy": ("§", "much noisier than the others: compared by its own paired t-test, which finds little"),
    "diverged": ("‡", "some seeds diverged: mean of the others, ranked last"),
}
"""Flag → its mark and what the note says about it."""


@dataclass(frozen=True)
class Value:
    """Mean and spread of the runs of one cell, in the score's unit.

    Args:
        mean: mean over seeds; NaN prints as "diverged".
        std: standard deviation over seeds; NaN (one seed) is not printed.
        tied: whether it is statistically tied with the best of its column.
        flags: keys of `FLAGS`.
    """

    mean: float
    std: float = math.nan
    tied: bool = False
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [flag for flag in self.flags if flag not in FLAGS]
        if unknown:
            raise ValueError(f"unknown flag {unknown[0]!r}. Known: {', '.join(sorted(FLAGS))}.")

    @classmethod
    def over_seeds(cls, scores: ArrayLike, *, tied: bool = False, flags: tuple[str, ...] = ()) -> Value:
        """Of `scores` (num_seeds), those that did not diverge; the flag "diverged" where only some did."""
        scores = np.asarray(scores, dtype=np.float64)
        finite = scores[np.isfinite(scores)]
        if not finite.size:
            return cls(math.nan, tied=tied, flags=flags)
        std = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
        return cls(float(finite.mean()), std, tied, (*flags, "diverged") if finite.size < scores.size else flags)


def explained_flags(rows: Iterable[Sequence[Entry]]) -> str:
    """What the marks in a table mean, a sentence for each, to be put behind its note; "" where nothing is marked."""
    raised = {flag for row in rows for entry in row if isinstance(entry, Value) for flag in entry.flags}
    return "".join(f" {mark} {meaning}." for flag, (mark, meaning) in FLAGS.items() if flag in raised)


def how_many(numbers: int | Sequence[int], noun: str) -> str:
    """How many, in words; of several numbers, how many at least and at most.

    >>> how_many(1, "seed"), how_many(3, "tuning seed"), how_many([3, 3], "seed"), how_many([3, 1], "seed")
    ('1 seed', '3 tuning seeds', '3 seeds', '1 to 3 seeds')
    """
    fewest, most = (numbers, numbers) if isinstance(numbers, int) else (min(numbers), max(numbers))
    many = f"{most} {noun}{'' if most == 1 else 's'}"
    return many if fewest == most else f"{fewest} to {many}"


@dataclass(frozen=True)
class Tally:
    """A count and what share of the whole it is.

    Args:
        count: how many.
        percent: the share; None where the whole is empty.
    """

    count: int
    percent: float | None


Entry = str | int | float | Value | Tally | Estimate
"""What a table may hold. An `Estimate` prints in whole numbers: it is made for percentages."""


@dataclass(frozen=True)
class Table:
    """Columns, rows and what must be said about them. The first column names the rows.

    Args:
        title: one line above.
        columns: names, num_columns of them.
        rows: num_rows tuples of num_columns entries.
        note: what marks mean, how many runs there were; "" for none.

    >>> print(Table("Error, %", ("schedule", "5%"), (("rex", Value(41.25, 1.2, tied=True)),), "* tied").to_text())
    Error, %
    schedule         5%
    rex       41.2±1.2*
    * tied
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r} has {len(self.columns)} columns, but a row has {len(row)} entries: {row}."
                )

    def to_text(self) -> str:
        """Plain text for a terminal, columns aligned, the note wrapped at 100 characters."""
        bodies = self._formatted()
        # Marks get a column of their own width, so that numbers with and without them line up.
        mark_widths = [max((len(_marks(row[c])) for row in self.rows), default=0) for c in range(len(self.columns))]
        grid = [
            list(self.columns),
            *(
                [body + _marks(entry).ljust(width) for body, entry, width in zip(texts, row, mark_widths, strict=True)]
                for texts, row in zip(bodies, self.rows, strict=True)
            ),
        ]
        widths = [max(len(line[column]) for line in grid) for column in range(len(self.columns))]
        left = self._left_aligned()
        lines = [
            "  ".join(
                text.ljust(width) if is_left else text.rjust(width)
                for text, width, is_left in zip(line, widths, left, strict=True)
            ).rstrip()
            for line in grid
        ]
        return "\n".join([self.title, *lines, *textwrap.wrap(self.note, width=100)])

    def to_html(self) -> str:
        """A `<figure>` with the table inside a box that scrolls sideways; all text escaped."""
        left = self._left_aligned()
        head = "".join(
            f'<th scope="col"{"" if is_left else _NUMBER_CLASS}>{html.escape(name)}</th>'
            for name, is_left in zip(self.columns, left, strict=True)
        )
        body: list[str] = []
        for row, texts in zip(self.rows, self._formatted(), strict=True):
            cells = [f'<th scope="row">{html.escape(texts[0])}</th>']
            for entry, text, is_left in zip(row[1:], texts[1:], left[1:], strict=True):
                names = ([] if is_left else ["number"]) + (["tied"] if isinstance(entry, Value) and entry.tied else [])
                css = f' class="{" ".join(names)}"' if names else ""
                marks = f'<span class="marks">{_marks(entry)}</span>' if _marks(entry) else ""
                cells.append(f"<td{css}>{html.escape(text)}{marks}</td>")
            body.append(f"<tr>{''.join(cells)}</tr>")
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return (
            f'<figure class="table"><figcaption>{html.escape(self.title)}</figcaption>'
            f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>{note}</figure>"
        )

    def to_json(self) -> dict[str, object]:
        """Plain data for `json.dumps(..., allow_nan=False)`: numbers unrounded, NaN and infinity as null."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[_entry_json(entry) for entry in row] for row in self.rows],
            "note": self.note,
        }

    def _left_aligned(self) -> list[bool]:
        return [
            column == 0 or all(isinstance(row[column], str) for row in self.rows) for column in range(len(self.columns))
        ]

    def _formatted(self) -> list[list[str]]:
        values = [entry for row in self.rows for entry in row if isinstance(entry, Value)]
        value_decimals = _value_decimals(values)
        estimates = [entry for row in self.rows for entry in row if isinstance(entry, Estimate)]
        estimate_decimals = _spread_decimals([(entry.high - entry.low) / 2 for entry in estimates]) or 0
        decimals = [
            _decimals([entry for row in self.rows if isinstance(entry := row[column], float)])
            for column in range(len(self.columns))
        ]
        return [
            [
                _entry_text(
                    entry, estimate_decimals if isinstance(entry, Estimate) else value_decimals, decimals[column]
                )
                for column, entry in enumerate(row)
            ]
            for row in self.rows
        ]


_NUMBER_CLASS = ' class="number"'


def _value_decimals(values: Sequence[Value]) -> int:
    """One number of decimals for a whole table of scores: two significant digits of the median standard deviation."""
    found = _spread_decimals([value.std for value in values])
    return _decimals([value.mean for value in values]) if found is None else found


def _spread_decimals(spreads: Sequence[float]) -> int | None:
    """Decimals that show two significant digits of the median spread; None if there is no spread."""
    positive = [spread for spread in spreads if math.isfinite(spread) and spread > 0]
    return _clamp(1 - math.floor(math.log10(float(np.median(positive))))) if positive else None


def _decimals(numbers: Sequence[float]) -> int:
    """Decimals that show three significant digits of the largest number."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    return _clamp(2 - math.floor(math.log10(largest))) if largest > 0 else 0


def _clamp(decimals: int) -> int:
    return min(8, max(0, decimals))


def _entry_text(entry: Entry, spread_decimals: int, decimals: int) -> str:
    if isinstance(entry, Value):
        if not math.isfinite(entry.mean):
            return "diverged"
        spread = f"±{entry.std:.{spread_decimals}f}" if math.isfinite(entry.std) else ""
        return f"{entry.mean:.{spread_decimals}f}{spread}"
    if isinstance(entry, Tally):
        return EMPTY if entry.percent is None else f"{entry.count} ({entry.percent:.0f}%)"
    if isinstance(entry, Estimate):
        if not math.isfinite(entry.value):
            return EMPTY
        if not math.isfinite(entry.low + entry.high):
            return f"{entry.value:.{spread_decimals}f}"
        return f"{entry.value:.{spread_decimals}f} [{entry.low:.{spread_decimals}f}, {entry.high:.{spread_decimals}f}]"
    if isinstance(entry, float):
        return f"{entry:.{decimals}f}" if math.isfinite(entry) else EMPTY
    return str(entry)


def _marks(entry: Entry) -> str:
    if not isinstance(entry, Value):
        return ""
    return (TIED_MARK if entry.tied else "") + "".join(FLAGS[flag][0] for flag in entry.flags)


def _entry_json(entry: Entry) -> object:
    if isinstance(entry, Value):
        return {
            "mean": finite_or_none(entry.mean),
            "std": finite_or_none(entry.std),
            "tied": entry.tied,
            "flags": list(entry.flags),
        }
    if isinstance(entry, Tally):
        return {"count": entry.count, "percent": entry.percent}
    if isinstance(entry, Estimate):
        return estimate_json(entry)
    return finite_or_none(entry) if isinstance(entry, float) else entry


def finite_or_none(number: float) -> float | None:
    """The number, or None for NaN and infinity, which strict JSON does not know."""
    return float(number) if math.isfinite(number) else None


def estimate_json(estimate: Estimate) -> dict[str, float | None]:
    """An estimate as plain data for strict JSON."""
    return {name: finite_or_none(getattr(estimate, name)) for name in ("value", "low", "high")}
