#!/usr/bin/env bash
# Slurm with two nodes on one Debian machine, for tests/servers/test_slurm.py.
#
#   sudo tests/slurm/setup.sh         install slurm-wlm and start munged, slurmctld and two slurmds
#   sudo tests/slurm/setup.sh stop    end them
#
# Both nodes are this machine, at 127.0.0.1 on two ports; each has all of its cores and no accounting.
# Needs root (or a container), and Debian's packages. Never run it on a machine that is part of a cluster.
set -euo pipefail

STATE=/var/tmp/garcon-slurm

stop() {
  for name in slurmd-n1 slurmd-n2 slurmctld munged; do
    pid_file="$STATE/$name.pid"
    [ -f "$pid_file" ] && kill "$(cat "$pid_file")" 2>/dev/null || true
    rm -f "$pid_file"
  done
}

install_slurm() {
  command -v slurmctld slurmd munged >/dev/null && return
  apt-get update -qq
  # Nobody starts the daemons of the packages: they have no configuration yet.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
  rm /usr/sbin/policy-rc.d
}

configure() {
  local host cores memory
  host=$(hostname -s)
  cores=$(nproc)
  memory=$(($(awk '/MemTotal/ { print $2 }' /proc/meminfo) / 1024 / 2))
  mkdir -p "$STATE"/{ctld,n1,n2} /etc/slurm /run/munge
  [ -f /etc/munge/munge.key ] || { install -d -o munge -m 700 /etc/munge; mungekey --create; }
  chown munge: /etc/munge/munge.key /run/munge
  cat >/etc/slurm/slurm.conf <<CONF
ClusterName=garcon
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/%n
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd-%n.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
KillWait=10
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=$cores RealMemory=$memory
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  runuser -u munge -- munged --force --pid-file=/run/munge/munged.pid
  ln -sf /run/munge/munged.pid "$STATE/munged.pid"
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%D --states=idle 2>/dev/null)" = 2 ] && break
    sleep 0.2
  done
  sinfo
  srun --nodes=2 --ntasks=2 sh -c 'echo "$SLURMD_NODENAME answers"'
}

stop
if [ "${1:-start}" != stop ]; then
  install_slurm
  configure
  start
fi
