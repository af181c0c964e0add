"""Admission: pods in, patches out; captures and annotations validated. `python -m webhook`."""
