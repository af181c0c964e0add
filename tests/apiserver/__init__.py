"""Admission on a real API server of the test's own: no kubelet, no controllers, up in seconds."""
