"""Generator of a synthetic event log and catalogue of a shop with returning users, in any size.

Within a category, the popularity of items follows Zipf's law, and each item becomes more or less
popular over the year. A user stays for a few months and moves through three preferred categories.
The events of a visit are from one category (except for some noise), and an item is often followed
by one of its next two neighbours. The log is written period by period in order of time, so that
memory does not grow with the number of events.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]

EVENTS_PER_USER = EVENTS_PER_ITEM = 20
_EVENTS_PER_VISIT = 5
_NUM_CATEGORIES = 60
_PERIODS = 24
# Length of a user's stay, in periods.
_STAY = 6
_START = 1_704_067_200
_YEAR_S = 366 * 86_400
_NOISE = 0.1
_LEADS_ON = 0.4
_TITLE_WORDS = 4
_WORDS_PER_CATEGORY = 120
_NUM_WORDS = 3_000
_SYLLABLES = ("ba", "cor", "den", "fil", "gam", "hu", "jo", "kel", "lum", "mir", "nov", "pra")


class GrowthLog(NamedTuple):
    """The files of a synthetic log."""

    events: Path
    catalogue: Path


def write_log(folder: Path, num_events: int, seed: int = 42) -> GrowthLog:
    """Write a log with one item per 20 events. The same seed gives the same files."""
    log = GrowthLog(folder / "events" / "events.csv", folder / "catalogue.csv")
    log.events.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    num_items = max(num_events // EVENTS_PER_ITEM, _NUM_CATEGORIES)
    # Items of the same category have neighbouring indices.
    category = np.sort(rng.integers(0, _NUM_CATEGORIES, num_items))
    item_ids = pl.select(pl.format("item{}", pl.Series(rng.permutation(num_items)))).to_series()
    _catalogue(category, item_ids, rng).write_csv(log.catalogue)
    periods = _Periods(category, max(num_events // EVENTS_PER_USER, 1), rng)
    with log.events.open("wb") as file:
        written = 0
        for period in range(_PERIODS):
            wanted = num_events * (period + 1) // _PERIODS - written
            users, items, times = periods.draw(period, wanted)
            table = pl.DataFrame(
                {"user": users, "item_id": item_ids.gather(items), "timestamp": times}
            ).select(pl.format("user{}", "user").alias("user_id"), "item_id", "timestamp")
            table.write_csv(file, include_header=period == 0)
            written += wanted
    return log


class _Periods:
    """Random generator of events, one period at a time."""

    def __init__(self, category: Ints, num_users: int, rng: np.random.Generator) -> None:
        self._rng = rng
        number = len(category)
        self._category = category
        self._first = np.searchsorted(category, np.arange(_NUM_CATEGORIES + 1))
        # Random popularity ranks within the category; `_trend` is the change over the year.
        order = np.lexsort((rng.random(number), category))
        rank = np.empty(number, np.int64)
        rank[order] = np.arange(number) - self._first[category[order]] + 1
        self._log_weight = -np.log(rank)
        self._trend = rng.normal(size=number)
        # Sorted by arrival, so that the users of a period are consecutive.
        self._arrival = np.sort(rng.integers(1 - _STAY, _PERIODS, num_users))
        self._activity = rng.lognormal(0.0, 1.0, num_users)
        self._tastes = rng.integers(0, _NUM_CATEGORIES, [num_users, 3])

    def draw(self, period: int, count: int) -> tuple[Ints, Ints, Ints]:
        """Return the users, items and times of `count` events, in order of time."""
        rng = self._rng
        num_visits = 2 * count // _EVENTS_PER_VISIT + 10
        lengths = rng.geometric(1 / _EVENTS_PER_VISIT, num_visits)
        visit = np.repeat(np.arange(num_visits), lengths)[:count]
        users = self._visitors(period, num_visits)
        # The preferred category of a user changes over the stay.
        age = (period - self._arrival[users]) / _STAY
        taste = np.minimum(rng.random(num_visits) * 0.8 + age * 2.2, 2.0).astype(np.int64)
        wanted = self._tastes[users, taste][visit]
        stray = rng.random(count) < _NOISE
        wanted[stray] = rng.integers(0, _NUM_CATEGORIES, int(stray.sum()))
        items = self._led_on(self._popular(period, wanted), visit)
        length_s = _YEAR_S // _PERIODS
        starts = _START + period * length_s + rng.integers(0, length_s, num_visits)
        waits = np.cumsum(rng.integers(5, 180, count))
        first = np.searchsorted(visit, visit)
        times = starts[visit] + waits - waits[first]
        in_time = np.argsort(times, kind="stable")
        return users[visit][in_time], items[in_time], times[in_time]

    def _visitors(self, period: int, count: int) -> Ints:
        first, last = np.searchsorted(self._arrival, [period - _STAY + 1, period + 1])
        if first == last:
            first, last = 0, len(self._arrival)
        total = np.cumsum(self._activity[first:last])
        drawn: Ints = np.searchsorted(total, self._rng.random(count) * total[-1]) + first
        return drawn

    def _popular(self, period: int, wanted: Ints) -> Ints:
        """Draw an item for each category in `wanted`, by the items' popularity in the period."""
        when = period / (_PERIODS - 1) - 0.5
        total = np.append(0.0, np.cumsum(np.exp(self._log_weight + self._trend * when)))
        low, high = total[self._first[wanted]], total[self._first[wanted + 1]]
        indices = np.searchsorted(
            total, low + self._rng.random(len(wanted)) * (high - low), "right"
        )
        drawn: Ints = np.clip(indices - 1, 0, len(self._category) - 1)
        return drawn

    def _led_on(self, items: Ints, visit: Ints) -> Ints:
        """Replace some items with the visit's previous item plus 1 or 2.

        So the order of the events contains information.
        """
        count = len(items)
        leads = self._rng.random(count) < _LEADS_ON
        leads[np.flatnonzero(np.diff(visit, prepend=-1))] = False
        steps = np.where(leads, self._rng.integers(1, 3, count), 0)
        anchor = np.maximum.accumulate(np.where(leads, 0, np.arange(count)))
        walked = np.cumsum(steps)
        indices: Ints = items[anchor] + walked - walked[anchor]
        return np.minimum(indices, len(self._category) - 1)


def _catalogue(category: Ints, item_ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    """Return the catalogue; each title has two words typical of its category and two others."""
    words = np.array(_words(_NUM_WORDS), dtype=object)
    count = len(category)
    first_words = rng.integers(0, _NUM_WORDS - _WORDS_PER_CATEGORY, _NUM_CATEGORIES)
    own = first_words[category][:, None] + rng.integers(0, _WORDS_PER_CATEGORY, [count, 2])
    other = rng.integers(0, _NUM_WORDS, [count, _TITLE_WORDS - 2])
    chosen: npt.NDArray[Any] = words[np.concatenate([own, other], axis=1)]
    columns = {f"word{index}": pl.Series(chosen[:, index]) for index in range(_TITLE_WORDS)}
    return pl.DataFrame({"item_id": item_ids, "category": category, **columns}).select(
        "item_id",
        pl.format("category{}", "category").alias("category"),
        pl.concat_str(list(columns), separator=" ").alias("title"),
    )


def _words(count: int) -> list[str]:
    parts = itertools.product(("", "s"), *[_SYLLABLES] * 3)
    return [
        third + second + first + end for end, first, second, third in itertools.islice(parts, count)
    ]
