"""The agent that runs on other people's computers. Standard library only, Python 3.9+; imports nothing of
ours."""
