"""One module for each row of the table: `run` measures and yields one result for each point.

The name on the command line is the module's with `-` for `_`; a new module is found by itself.
"""
