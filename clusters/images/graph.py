"""Tasks that need each other, run as wide as their lanes allow."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from clusters.images import process


@dataclass(frozen=True)
class Task:
    """One piece of work; `needs` names tasks that must be done before, `lane` what it competes for."""

    name: str
    lane: str
    work: Callable[[], None]
    needs: tuple[str, ...] = ()


def run(tasks: Sequence[Task], lanes: Mapping[str, int]) -> None:
    """Run all tasks, earlier ones first where there is a choice.

    After the first failure nothing new is begun; what runs is ended and the failure is raised. A `needs` that names no
    task is taken as done.

    Raises:
        ValueError: tasks need each other in a circle, or a name is taken twice.

    """
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError("two tasks share a name")
    waiting = list(tasks)
    _require_order(tasks)
    running: dict[Future[None], Task] = {}
    with ThreadPoolExecutor(max_workers=max(sum(lanes.values()), 1), thread_name_prefix="images") as pool:
        try:
            while waiting or running:
                for task in _startable(waiting, running.values(), lanes):
                    waiting.remove(task)
                    running[pool.submit(task.work)] = task
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    running.pop(future)
                    future.result()
        except BaseException:
            with process.stopped():
                pool.shutdown(wait=True, cancel_futures=True)
            raise


def _startable(waiting: Sequence[Task], running: Collection[Task], lanes: Mapping[str, int]) -> Iterator[Task]:
    open_names = {task.name for task in waiting} | {task.name for task in running}
    busy = Counter(task.lane for task in running)
    for task in tuple(waiting):
        if busy[task.lane] < lanes[task.lane] and not open_names & set(task.needs):
            busy[task.lane] += 1
            yield task


def _require_order(tasks: Sequence[Task]) -> None:
    known = {task.name for task in tasks}
    try:
        tuple(TopologicalSorter({task.name: known & set(task.needs) for task in tasks}).static_order())
    except CycleError as error:
        raise ValueError(f"tasks need each other in a circle: {' -> '.join(error.args[1])}") from error
