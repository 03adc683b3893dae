"""Typecast: how text-to-image models typecast people, measured with intervals on shares and differences."""

__version__ = "0.1.0"
