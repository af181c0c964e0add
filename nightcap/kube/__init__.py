"""The only code that speaks to the Kubernetes API: requests, watches, reviews, events."""
