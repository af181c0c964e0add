"""Where segments lie: `base` says what a store can do, `directory` does it on a volume."""
