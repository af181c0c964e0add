"""The collector: what sidecars speak to, and what the controller reads reports from."""
