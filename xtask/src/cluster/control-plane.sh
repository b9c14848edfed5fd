# The first process of the control plane, which has processes and a network of its own, and the machine's files.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
exec tini -- sleep infinity
