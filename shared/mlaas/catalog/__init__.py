"""The catalog of models, vector stores and data sets: immutable versions under a name, and aliases that move."""

from .kinds import KINDS, Kind, name_of
from .versions import Catalog, Overtaken

__all__ = ["KINDS", "Catalog", "Kind", "Overtaken", "name_of"]
