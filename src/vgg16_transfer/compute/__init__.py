"""Other processes that work for a stage: one module per place, named like the rows of ``COMPUTE``.

``local`` has no module, because a stage without a pool works in its own process.
"""
