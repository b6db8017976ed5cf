"""Which process of a parallel run checks which file next: each stays in its area as long as there is something left of it.

An area's functions are deployed once for each process that checks something of it. Handed out in order, each file to whoever is free, every area
was deployed by every process, and a third process only added to that.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from xdist.scheduler import LoadFileScheduling


def next_file(waiting: Sequence[str], own: str, others: Collection[str]) -> str:
    """Return the file to hand to a process that is in area `own` while the others are in theirs.

    Its own area's next file; else the first of an area that nobody is in; else one of the area with the most left to do.
    """
    left = Counter(map(area_of, waiting))
    free = [area for area in left if area not in others]
    chosen = own if own in left else free[0] if free else max(left, key=lambda area: left[area])
    return next(file for file in waiting if area_of(file) == chosen)


def area_of(file: str) -> str:
    """Return a file's folder."""
    return file.rpartition("/")[0]


class AreaScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist publishes no types
    """xdist's distribution by files, with another order."""

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401  # xdist's own
        """Begin with every process in no area."""
        super().__init__(*args, **more)
        self._areas: dict[Any, str] = {}

    def _assign_work_unit(self, node: Any) -> None:  # noqa: ANN401  # xdist's controller of a process
        others = [area for other, area in self._areas.items() if other is not node]
        file = next_file(list(self.workqueue), self._areas.get(node, ""), others)
        self.workqueue.move_to_end(file, last=False)
        self._areas[node] = area_of(file)
        super()._assign_work_unit(node)
