"""SSH tunnels that are kept up, one process each, and that end with whoever opened them."""
