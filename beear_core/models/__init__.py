"""A model as a folder of files, as a chat model in memory, and what is added to its hidden states.

``folder`` and what stands below it load no torch; ``load``, ``chat``, ``hooks``, ``forward`` and ``drift`` do.
"""
