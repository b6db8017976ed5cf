"""Prometheus's operator, and a Prometheus with an Alertmanager for whoever has none of its own."""
