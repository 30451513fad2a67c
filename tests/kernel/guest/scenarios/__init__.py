"""The scenarios, each a function of the stage and its arguments."""
