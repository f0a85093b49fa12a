"""ML-AAS on Knative: machine learning as a service for a research institute."""

import os as _os

from .settings import LIBRARY_DEFAULTS as _LIBRARY_DEFAULTS

__version__ = "0.1.0"

for _name, _value in _LIBRARY_DEFAULTS.items():  # here, because they are read when a library is imported, wherever that happens first
    _os.environ.setdefault(_name, _value)
