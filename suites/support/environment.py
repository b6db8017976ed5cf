"""What a report says about where it was made: enough to tell two runs apart, nothing that names a person."""

import os
import platform
import resource
from typing import Any

import psutil

from clusters.bringup import Testbed


def environment_facts(bed: Testbed) -> dict[str, Any]:
    """Return facts about the host and the cluster by name; sizes in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    facts: dict[str, Any] = {
        "cores": os.cpu_count() or 0,
        "memory": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        # The testbed's own processor time, without the programs it calls: what is left of the wall time is the cluster's.
        "testbed_cpu_seconds": round(own.ru_utime + own.ru_stime, 2),
    }
    if bed.memory:
        facts["cluster_memory"] = bed.memory
    if bed.cluster is not None:
        facts |= {"cluster": bed.cluster.name, "nodes": len(bed.cluster.nodes) or None, "kept": bed.options.keep, **bed.cluster.facts}
    return {name: value for name, value in facts.items() if value is not None}
