#!/bin/sh
# Prepares the root file system for measurements on this machine's own kernel, as
# guest/init.sh does for a kernel of its own, and becomes the runner.
set -e
for directory in /run /tmp /var/log; do
    mount -t tmpfs tmpfs "$directory"
done
mount -t sysfs sysfs /sys
mkdir /tmp/etc
cat >/tmp/etc/hosts <<'HOSTS'
127.0.0.1 localhost
10.0.0.1 server.lab
HOSTS
mount --bind /tmp/etc/hosts /etc/hosts
ip link set lo up
ip address add 10.0.0.1/32 dev lo
mkdir /tmp/checkout
(cd /srv/ktlsagent && cp -r ktlsagent twisted tests /tmp/checkout)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 PYTHONPATH=/tmp/checkout
cd /tmp
exec python3 -m tests.kernel.guest.runner
