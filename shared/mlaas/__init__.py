"""ML-AAS on Knative: machine learning as a service for a research institute."""

__version__ = "0.1.0"
