"""llm_maker: a market-making daemon that takes an LLM's advice."""

__version__ = "0.1.0"
