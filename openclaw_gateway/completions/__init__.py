"""OpenAI's chat completions API in front of the agents. Loaded when the configuration asks for it."""
