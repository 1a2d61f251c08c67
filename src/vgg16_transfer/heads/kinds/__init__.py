"""The kinds of heads: one module each, named like its row in ``HEAD_KINDS``."""
