"""What the checks of this area share: the mesh tells its witnesses what ours is told to."""

import pytest

from clusters.bringup import Testbed


@pytest.fixture(scope="module")
def our_witnesses(testbed: Testbed) -> None:
    """Say why nobody is asked where the mesh is not ours."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("whom the mesh tells of requests, and how, is its own configuration, and this mesh is somebody's")
