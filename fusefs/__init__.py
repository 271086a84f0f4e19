"""The kernel's view of a ``Drive``: a thin translation of FUSE requests.

Owns the mount, errno mapping, handles and cache invalidation; the only importer of pyfuse3. Refuses
to know what a file system means here: every handler makes at most one call on the ``Drive``. Started
by ``node.main``.
"""
