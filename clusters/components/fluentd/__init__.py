"""Fluentd: what the containers of a node write, to the store."""
