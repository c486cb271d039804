"""The verbs of ``container``, a function each: (context, words after the verb) -> exit code."""
