"""Tests of the mount: its parts without a kernel, and the whole on a real mount."""
