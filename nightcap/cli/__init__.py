"""`kubectl nightcap`: start, stop, see and fetch captures, with one's own rights.

Nothing here is imported before it is needed: a plugin that takes half a second to say
`--help` is not asked twice.
"""
