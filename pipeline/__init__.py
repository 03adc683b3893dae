"""Typecast: how text-to-image models typecast people, measured with an interval on every number."""

__version__ = "0.1.0"
