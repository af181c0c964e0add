"""Nightcap: packet capture that sleeps in every Kubernetes pod until somebody needs it."""

__version__ = "0.1.0"
