"""
Random schedules of the whole service: real TCP, the real transport, netlink codec and
kTLS code, over a kernel, a reactor and peers that do what a seed makes them do.
"""
