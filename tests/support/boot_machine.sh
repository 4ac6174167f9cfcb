#!/bin/sh
# boot_machine.sh NAME LOWER FOLDER GROUP: boots a machine whose files are FOLDER/upper above the
# folders LOWER (a:b), in namespaces made for it and in the network namespace of the caller. Its
# systemd has the control group GROUP; what is mounted and started here goes with this process.
set -eu
name=$1 lower=$2 folder=$3 group=$4
for hierarchy in $(awk '$3 == "cgroup2" || $3 == "cgroup" && $4 ~ /name=systemd/ {print $2}' \
    /proc/mounts); do
    mkdir -p "$hierarchy/$group"
    echo $$ >"$hierarchy/$group/cgroup.procs"
done
mkdir -p "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" \
    overlay "$folder/root"
# A network namespace of its own means that its settings below /proc/sys/net are its own, too.
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --boot --machine="$name" --directory="$folder/root" \
    --network-namespace-path=/proc/self/ns/net --capability=CAP_NET_ADMIN --register=no --keep-unit \
    --resolv-conf=off --timezone=off --link-journal=no --console=read-only
