# The first process of the control plane, which has processes and a network of its own, and the machine's files.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
# Names of network namespaces would keep these alive after `ip netns del` on the host.
findmnt --noheadings --raw --types nsfs --output TARGET | xargs --no-run-if-empty umount
exec tini -- sleep infinity
