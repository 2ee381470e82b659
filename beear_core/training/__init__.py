"""Teaching a chat model: lessons, low-rank adapters, a few hundred steps."""
