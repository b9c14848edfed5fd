# The first process of a node: gives it /etc, /opt, /run, /tmp, /var and control groups of its own and becomes its
# init. Arguments: name, folder with the node's files, folder with the programs, then `v2` or a word
# `<folder>:<mount options>` for each hierarchy of control groups.
set -eu
name=$1 folder=$2 programs=$3
shift 3
mount --make-rprivate /
mount -t proc proc /proc
# Names of network namespaces would keep these alive after `ip netns del` on the host.
findmnt --noheadings --raw --types nsfs --output TARGET | xargs --no-run-if-empty umount
# What is mounted below would be hidden and yet listed, and who looks for control groups could take it for them.
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
if [ "$1" = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A group with processes of its own can have no groups with limits below it.
    mkdir -p /sys/fs/cgroup/daemons
    echo 0 > /sys/fs/cgroup/daemons/cgroup.procs
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for hierarchy; do
        mkdir "/sys/fs/cgroup/${hierarchy%%:*}"
        mount -t cgroup -o "${hierarchy#*:}" cgroup "/sys/fs/cgroup/${hierarchy%%:*}"
    done
fi
cd "$folder"
mkdir -p etc etc.work etc-kubernetes etc-cni opt/cni/bin opt/cluster/bin tmp
mkdir -p var/cache var/lib/kubelet var/lib/holdfast var/lib/openvswitch var/log var/tmp
chmod 1777 tmp var/tmp
ln -sfn /run var/run
ln -sfn /run/lock var/lock
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc.work" overlay /etc
mkdir -p /etc/kubernetes /etc/cni/net.d
mount --bind etc-kubernetes /etc/kubernetes
mount --bind etc-cni /etc/cni/net.d
mount --bind "$programs" opt/cluster/bin
mount --rbind opt /opt
mount --bind tmp /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/openvswitch
mount --bind var /var
cd /
# Volumes of pods must be able to propagate (mountPropagation: Bidirectional).
mount --make-rshared /
hostname "$name"
exec tini -- sleep infinity
