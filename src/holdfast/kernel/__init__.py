"""Every syscall and every read of procfs, sysfs and cgroupfs. The only room that uses ctypes.

Wrappers keep the kernel's spelling and raise plain OSError naming the syscall and the path. What
composes several calls says why they come in that order. Every descriptor is close-on-exec.
"""
