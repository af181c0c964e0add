"""The words that Nightcap's programs share, as code: values and pure functions, no I/O."""
