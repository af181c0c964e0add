"""Kill everything at random while pods capture numbered packets, then look for each packet."""
