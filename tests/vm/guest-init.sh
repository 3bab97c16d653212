#!/bin/sh
# First process of the user-mode-linux guest. Its root is this machine's own /, seen through hostfs: the guest has the
# same programs and the same project at the same path, and a copy-on-write layer keeps everything it writes to itself.
#
# Kernel arguments: hf_modules=DIR  modules of the guest's kernel      hf_project=DIR  the project
#                   hf_run=WORDS    what guest.py is to do, joined by commas   hf_shares=DIR  laid over /, or empty
#                   hf_channel=DIR  a folder of the host, mounted on /channel, written through; remote.py runs instead
# /dev/ubda, an ext4 image, is mounted on /state: the only thing that outlives the guest.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
read -r arguments </proc/cmdline
for word in $arguments; do
    case $word in
        hf_modules=*) modules=${word#*=} ;;
        hf_project=*) project=${word#*=} ;;
        hf_run=*) run=${word#*=} ;;
        hf_shares=*) shares=${word#*=} ;;
        hf_channel=*) channel=${word#*=} ;;
    esac
done
release=$(uname -r)
insmod "$modules/$release/kernel/fs/overlayfs/overlay.ko"

# tmpfs cannot lie below the new root before that exists, so it takes /mnt for a while.
mount -t tmpfs -o mode=755,size=75% tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/shares
lower=/
# A mount of its own: overlayfs refuses layers of which one lies in the other.
if [ -n "$shares" ] && mount -t hostfs -o "$shares" none /mnt/shares; then lower=/mnt/shares:/; fi
mount -t overlay overlay -o "lowerdir=$lower,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root || exit 1
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm dev/mqueue
mount -t devpts -o mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p lib/modules state
mount -t hostfs -o "$modules" none lib/modules
# The project may lie in a folder that was just covered.
[ -e ".$project" ] || { mkdir -p ".$project" && mount -t hostfs -o "$project" none ".$project"; }
for pair in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sfn "/proc/self/${pair#*:}" "dev/${pair%%:*}"; done

# pivot_root and not chroot: the kernel loads modules by itself in the root of its own threads.
mkdir -p mnt/old
pivot_root . mnt/old
cd /
umount -l /mnt/old
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in cpu io memory pids; do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
for module in overlay bridge veth loop; do modprobe "$module"; done
ip link set lo up
hostname guest
mount -t ext4 /dev/ubda /state || echo "@@ {\"failed\": \"cannot mount /dev/ubda\"}"

if [ -n "$channel" ]; then
    mkdir /channel && mount -t hostfs -o "$channel" none /channel
    program=tests.vm.remote
fi

cd "$project" || exit 1
set -f
IFS=,
# shellcheck disable=SC2086  # one word each
"$project/.venv/bin/python" -m "${program:-tests.vm.guest}" $run </dev/null
echo "@@ {\"exit\": $?}"
umount /state
sync
echo o >/proc/sysrq-trigger
sleep 10
