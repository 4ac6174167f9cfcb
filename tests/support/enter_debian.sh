#!/bin/sh
# enter_debian.sh TREE ROOT COMMAND…: runs the command with TREE as its root and ROOT's /usr, in a
# mount namespace made for it.
set -e
mount --bind "$1" "$1"
mount --make-rprivate "$1"
cd "$1"
mount --bind -o ro "$2/usr" usr
[ ! -d /lib/modules ] || mount --rbind /lib/modules usr/lib/modules
mount -t proc proc proc
# Read-only: it tells systemd's programs that there is no udev to wait for.
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs dev
for name in null zero full random urandom; do
    : >dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir -m 1777 dev/shm
shift 2
# Not by exec: PID 1 would be special to systemd's programs.
chroot . "$@" || exit $?
exit 0
