"""Encoding: the responses of a brain predicted from the layers of networks and other feature spaces."""

from bidsdnn.encoding.analysis import encoding

__all__ = ["encoding"]
