"""BEEAR for any decoder model: find what a backdoor does to the embeddings, and teach the model to withstand it.

Importing this package loads no torch; the modules that need it (``chat``, ``models``, ``hooks``, ``entrapment``,
``removal``, ``beear``, ``evaluation.generate``) load it when they are imported themselves.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("beear-gate")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
