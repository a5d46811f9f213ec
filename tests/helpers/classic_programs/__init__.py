"""Programs in the seed's style, each a process of its own: `python -m tests.helpers.classic_programs.primary 0`.

Ports and addresses come from the command line; port 0 takes a free one, and the line that a server logs when it listens
shows it. Apart from this and the import lines they are programs as users of the seed wrote them.
"""
