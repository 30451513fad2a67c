"""
The kernel lab: a real kernel, booted in user mode, that mounts NFS over TLS.

On the host L{tests.kernel.rootfs} builds what is booted, L{tests.kernel.uml} boots
it and hands it scenarios, and L{tests.kernel.cases} is the table of the scenarios.
L{tests.kernel.qemu} boots whole machines, and L{tests.kernel.older} finds out which of
the two an older kernel needs; L{tests.kernel.debian} runs the unit tests in there.
Everything under L{tests.kernel.guest} runs inside.
"""
