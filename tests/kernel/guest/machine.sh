#!/bin/sh
# PID 1 of a whole machine, part of its disk image: unpacks the checkout from the
# second disk, and becomes the init script in there.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /srv/ktlsagent
mount -t proc proc /proc
modprobe virtio_blk
umount /proc
tar -x -f /dev/vda -C /srv/ktlsagent
exec /bin/sh /srv/ktlsagent/tests/kernel/guest/init.sh
