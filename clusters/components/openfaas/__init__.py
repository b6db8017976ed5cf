"""OpenFaaS: its gateway, the operator beside it, the queue with its worker, and what scales functions by their calls."""
