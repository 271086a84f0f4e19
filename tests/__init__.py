"""The tests, by altitude: unit, property, contract, task, FUSE and whole system.

The folders mirror the packages. What needs ``/dev/fuse``, root or whole processes carries the marker
``fuse``, ``root`` or ``system``; ``tests/conftest.py`` leaves it out where the machine cannot run it
and says so at the end.
"""
