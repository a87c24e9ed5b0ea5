"""splora: smaller and faster transformers, with an honest account of the cost."""

__version__ = "0.1.0"
