"""The parts of scripts/bench: one module for each bench."""
