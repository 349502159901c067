# The first process of a machine of its own: namespaces for everything, systemd, and the unit of examples/.
# $1: the controller; $2: the unit. Whatever is mounted or made here goes with the namespaces.
set -eu
# Ways to folders that are about to be covered.
exec 3<"$1" 4<"$2"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/bin
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /etc/systemd/system
mkdir -p /run/systemd/system/lb.service.d /run/lock /run/etc
cat <&3 >/usr/local/bin/lb-controller
chmod +x /usr/local/bin/lb-controller
cat <&4 >/run/systemd/system/lb.service

is_unified=$(test "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs && echo yes || echo no)
mount -t sysfs sysfs /sys
if [ "$is_unified" = yes ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd
fi
mount -t bpf bpf /sys/fs/bpf

ip link set lo up
ip link add edge type veth peer name client
ip link set edge up
ip link set client up

cat >/run/etc/lb.yaml <<CONFIGURATION
interfaces: [edge]
services: [{name: shop, vips: [198.51.100.10], port: 443}]
pools: [{name: shop, backends: ["192.0.2.9:80"]}]
routes: [{path: /**, pool: shop, public: true}]
CONFIGURATION
# Only what this machine has not: a network to wait for, and /etc/lb.
cat >/run/systemd/system/lb.service.d/here.conf <<DROP_IN
[Unit]
DefaultDependencies=no
After=
Wants=
[Service]
ExecStart=
ExecStart=/usr/local/bin/lb-controller run --config /run/etc/lb.yaml
DROP_IN
cat >/run/systemd/system/nothing-else.target <<TARGET
[Unit]
DefaultDependencies=no
Wants=lb.service
TARGET
export container=test
exec /lib/systemd/systemd --system --unit=nothing-else.target --log-target=console
