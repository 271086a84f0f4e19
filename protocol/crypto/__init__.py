"""Keys, signatures, sealed values and sealed blocks: the only importers of nacl and cryptography."""
