"""Ready-made controllers. No framework."""

from glideslope.controller.rules import Plateau

__all__ = ["Plateau"]
