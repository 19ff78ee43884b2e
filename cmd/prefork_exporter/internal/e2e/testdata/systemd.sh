#!/bin/bash
# systemd.sh PROGRAM WORKER LISTEN WEB: runs a real systemd, as a user's, in namespaces of its own (unshare --mount --pid),
# with the program as a service that is started by a socket, and prints what systemd knows of it.
set -u
program=$1 worker=$2 listen=$3 web=$4
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/user/0
export XDG_RUNTIME_DIR=/run/user/0 HOME=/run/home
units=$HOME/.config/systemd/user
mkdir -p "$units"
cat >"$units/app.socket" <<UNIT
[Socket]
ListenStream=$listen
FileDescriptorName=web
UNIT
cat >"$units/app.service" <<UNIT
[Service]
Type=notify
ExecStart=$program supervise --workers=2 --web.listen-address=$web -- $worker --drain=10ms
ExecReload=/bin/kill -HUP \$MAINPID
WatchdogSec=2s
UNIT
/lib/systemd/systemd --user --unit=basic.target >/run/log 2>&1 &
manager=$!

show() { systemctl --user show -p "$1" --value app.service; }

# until_is WORDS COMMAND…: waits until the command prints the words.
until_is() {
	local want=$1 got
	shift
	for _ in {1..600}; do
		got=$("$@" 2>/dev/null)
		[[ $got == "$want" ]] && return
		sleep 0.05
	done
	echo "waited in vain for $*: $want; it is: $got"
	cat /run/log
	systemctl --user status app.service
	exit 1
}
metric() { curl -s "http://$web/metrics" | grep -F "$1 " | cut -d ' ' -f 2; }
fed() { # a sign of life after those before
	[[ $(show WatchdogTimestampMonotonic) != "$before" ]] && echo yes
}

until_is active systemctl --user is-active basic.target
systemctl --user start app.socket
echo "answer: $(curl -s "http://$listen/fast" | cut -d ' ' -f 1)"
until_is '2 of 2 workers run' show StatusText
until_is active show ActiveState
echo "state: $(show ActiveState), $(show StatusText)"
pid=$(show MainPID)

systemctl --user reload app.service
until_is 1 metric 'prefork_master_reloads_total{result="success"}'
kill -USR2 "$pid"
until_is 1 metric 'prefork_master_restarts_total{reason="reload"}'
until_is '2 of 2 workers run' show StatusText
for _ in 1 2 3; do
	before=$(show WatchdogTimestampMonotonic)
	until_is yes fed
done
echo "after a reload and an upgrade: $(show ActiveState), $([[ $(show MainPID) == "$pid" ]] && echo the same process)"
echo "answer: $(curl -s "http://$listen/fast" | cut -d ' ' -f 1)"

kill -STOP "$pid"
until_is failed show ActiveState
echo "a master that stands still: $(show Result)"
systemctl --user reset-failed app.service
echo "answer: $(curl -s "http://$listen/fast" | cut -d ' ' -f 1)"
systemctl --user stop app.socket app.service
echo "stopped: $(show Result), $(show ExecMainStatus)"
kill $manager
wait $manager
