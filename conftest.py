"""Options, markers and plugins of every pytest run; fixtures live with what they are about."""

import pytest

pytest.register_assert_rewrite("suites.support", "workloads", "clusters")

pytest_plugins = ["clusters.fixtures", "workloads.fixtures", "suites.support.plugin"]
