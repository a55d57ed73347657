"""The events before a question as one vector, one encoder a module."""
