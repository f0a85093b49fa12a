"""The web app that the function catalog serves under /web: pages made on the server, which a small script makes livelier."""

from .routes import Routes

__all__ = ["Routes"]
