"""One module for each kind of value that a setting can have; `config.leaves` says which setting takes which.

A reader takes what was written and the path it stands at, and returns the typed value or raises `plain.BadValueError`.
None knows another setting, a file, or what takes the place of a bad value. Readers of a part that loads when it is
switched on import it inside the function.
"""
