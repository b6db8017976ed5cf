"""Changing something while requests run: draws one after another for as long as the change takes."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from workloads.records import Draw


def drawn_beside(change: Callable[[], object], draw: Callable[[], Draw]) -> Mapping[str, Any]:
    """Return, as one draw in JSON, the calls of at least three draws: until a change is under way, while it is, and after it is done.

    Raises what the change and the draw raise; the change is awaited either way.
    """
    drawn = [draw()]
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        drawn.append(draw())
        while not changing.done():
            drawn.append(draw())
        changing.result()
    drawn.append(draw())
    return one_after_another(drawn)


def one_after_another(draws: list[Draw]) -> dict[str, Any]:
    """Return draws made in turn as one, with its calls numbered through."""
    records = [record for draw in draws for record in draw.records]
    whole = replace(
        draws[0], count=sum(draw.count for draw in draws), seconds=sum(draw.seconds for draw in draws),
        records=tuple(replace(record, index=index) for index, record in enumerate(records)),
    )
    return whole.to_json()
