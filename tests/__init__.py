"""The tests of the agent; the kernel suite is in L{tests.kernel}."""
