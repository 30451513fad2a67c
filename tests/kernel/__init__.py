"""
The kernel lab: a real kernel, booted in user mode, that mounts NFS over TLS.

On the host L{tests.kernel.rootfs} builds what is booted, L{tests.kernel.uml} boots
it and hands it scenarios, and L{tests.kernel.cases} is the table of the scenarios.
Everything under L{tests.kernel.guest} runs inside.
"""
