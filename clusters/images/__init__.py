"""How an image comes to be: what it is made from, how it is built once, and how a node finds it."""

from clusters.images.store import ImageStore

__all__ = ["ImageStore"]
