"""What operators run: a module or package for each command, and what these share.

Shared are `attempts`, `display`, `files`, `indexing`, `parallel` and `wording`.
"""
