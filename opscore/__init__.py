"""Ops-Core: the operations core for AI agents."""

__version__ = "0.1.0"
