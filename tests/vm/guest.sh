#!/bin/bash
# In the VM, as root, started by vng's init on a view of the host that is slow: moves to the VM's
# own disk and runs the command there. The folder shared with the host holds its words (the first
# is the folder to start in), each with a NUL behind it, and takes its output and exit status.
set -eu

shared=/run/tula-vm
root=/run/tula-root
limit=$1 # seconds

prepare() {
    modprobe -a virtio_blk ext4
    mkdir $root
    mount -t ext4 /dev/vda $root
    mount -t proc proc $root/proc
    mount --rbind /sys $root/sys
    mount --rbind /dev $root/dev
    mount -t tmpfs -o mode=0755 run $root/run
    for directory in /tmp /var/tmp; do
        # Not over the checkout, where that is below it.
        case ${words[0]} in
            "$directory"/*) chmod 1777 $root$directory ;;
            *) mount -t tmpfs -o mode=1777 tmp $root$directory ;;
        esac
    done
    # Debian's packages stay where they are: few of their programs are started, slowly.
    local packages=${words[0]}/.packages
    if [ -d "$packages" ]; then
        mkdir "$root$packages"
        mount --bind "$packages" "$root$packages"
    fi
    mkdir "$root/lib/modules/$(uname -r)"
    mount --bind "$(readlink -f "/lib/modules/$(uname -r)")" "$root/lib/modules/$(uname -r)"
    echo "Booted Linux $(uname -r) in $(cut -d' ' -f1 /proc/uptime) s of its own clock."
}

mapfile -t -d '' words <$shared/words
prepare >$shared/output 2>&1
status=0
# Interrupted, pytest still says what it has found. Nobody need be left on the host for this.
timeout --signal=INT --kill-after=30 "$limit" chroot $root \
    /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
    PYTHONUNBUFFERED=1 TULA_VM=1 \
    /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "${words[@]}" \
    >>$shared/output 2>&1 || status=$?
echo $status >$shared/status
