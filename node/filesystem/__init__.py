"""The parts of the drive: local changes of the tree, open files, conflict versions.

Only `node.drive` uses them; what it offers to the mount is theirs put together.
"""
