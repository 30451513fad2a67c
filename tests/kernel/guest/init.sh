#!/bin/sh
# PID 1 of the guest: mounts what has to be writable, loads the modules, and
# becomes the runner, or systemd, which starts it.  The root is the host's cache and stays as it is.
set -e
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || true
mkdir -p /dev/shm /dev/pts
for directory in /run /tmp /var/log /var/lib/nfs; do
    mount -t tmpfs tmpfs "$directory"
done
mkdir /tmp/etc
cat >/tmp/etc/hosts <<'HOSTS'
127.0.0.1 localhost
10.0.0.1 server.lab
10.0.0.2 client.lab
10.0.1.1 blue.lab
fd00::1 server6.lab
fd00::2 client6.lab
HOSTS
touch /tmp/etc/exports
for file in hosts exports; do
    mount --bind "/tmp/etc/$file" "/etc/$file"
done
ip link set lo up
# Modules in some of these kernels; in others built in, or not to be had.
modprobe -qa ipv6 aesni_intel || true
modprobe -a tls sunrpc nfs nfsv3 nfsv4 nfsd veth gcm ccm ctr chacha20poly1305 tcp_diag
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8
# A copy that can be written to, so that Python keeps what it compiles.
mkdir /tmp/checkout
(cd /srv/ktlsagent && cp -r ktlsagent twisted tests /tmp/checkout)
export PYTHONPATH=/tmp/checkout
cd /tmp
if [ -z "$LAB_MANAGER" ]; then
    exec python3 -m tests.kernel.guest.runner
fi
mkdir -p /run/systemd/system
cat >/run/systemd/system/lab.target <<'TARGET'
[Unit]
Requires=lab.service
TARGET
cat >/run/systemd/system/lab.service <<SERVICE
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/python3 -m tests.kernel.guest.runner
WorkingDirectory=/tmp
Environment=PATH=$PATH HOME=$HOME LC_ALL=$LC_ALL PYTHONPATH=$PYTHONPATH
StandardOutput=null
SERVICE
exec "$LAB_MANAGER" --unit=lab.target --log-target=kmsg
