"""Decoding: columns of labels told from the responses of a brain, and from the layers of networks."""

from bidsdnn.decoding.analysis import decoding

__all__ = ["decoding"]
