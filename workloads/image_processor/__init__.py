"""image-processor: a function of OpenFaaS that resizes an image, behind the classic watchdog."""

IMAGE = "faasmesh.test/faasmesh/image-processor:1"
# The watchdog's own, beside the function's.
METRICS_PORT = 8081
# What the watchdog answers every request with once its process has ended well; no proxy does.
DURATION_HEADER = "x-duration-seconds"
