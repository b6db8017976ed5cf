"""What the self-tests share: property tests that a busy machine does not fail."""

from hypothesis import settings

# A deadline per example measures the machine, which builds images at the same time.
settings.register_profile("selftest", deadline=None)
settings.load_profile("selftest")
