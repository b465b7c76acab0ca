"""Model services: Anthropic, OpenAI and whatever speaks its API, Google. Loaded when an agent needs one."""
