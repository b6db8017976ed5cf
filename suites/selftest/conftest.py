"""What the self-tests share: property tests that a busy machine does not fail, and no Docker, wherever they run."""

import os

from hypothesis import settings

# A deadline per example measures the machine, which builds images at the same time.
settings.register_profile("selftest", deadline=None)
settings.load_profile("selftest")

# They need none; where an engine happens to run, a test that speaks to it would pass by accident and fail on the next machine.
os.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
