"""The page on which a live analysis can be watched: a server on this computer alone, and one HTML file."""

from .server import LivePage, check_port

__all__ = ["LivePage", "check_port"]
