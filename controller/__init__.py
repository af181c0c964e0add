"""The controller: captures to orders, reports to status."""
