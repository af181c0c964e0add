"""Tests and parts at a scale that no disposable cluster has: thousands of pods that nobody runs."""
