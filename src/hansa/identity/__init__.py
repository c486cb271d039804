"""Users, tokens, policy."""
