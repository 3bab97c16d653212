"""Containers as processes: the OCI spec, crun or runc under conmon, their exits, logs and streams.

All calls block; none uses asyncio. Everything about a running container lies below the run root:

    <run_root>/
        runtime.json              which runtime works here, found by running one container; valid for this boot
        boot_id                   the boot that the rest belongs to
        runtime-mounts/mnt        a pinned mount namespace, only where crun needs cgroup v2 controllers hidden
        seccomp/<hash>            compiled seccomp filters
        exits/<id>                the exit code in decimal, written by conmon by rename
        crun/<id>/                the runtime's own state (`runc/` for runc)
        containers/<id>/          the bundle
            config.json           the OCI spec
            pid  conmon.pid       process ids in decimal
            attach  ctl  winsz    conmon's socket and its two FIFOs
            oom                   there once the kernel killed something for lack of memory
            exec-<exec id>/       the same for one exec; conmon names its exit file after the container
"""
