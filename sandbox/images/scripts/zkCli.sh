#!/bin/sh
# ZooKeeper's command line client: zkCli.sh [-server host:port] [command…].
set -e
# shellcheck disable=SC2086
exec java -cp "@HOME@/lib/*:${ZOOCFGDIR:-/conf}${CLASSPATH:+:$CLASSPATH}" ${JVMFLAGS:-} ${CLIENT_JVMFLAGS:-} \
    org.apache.zookeeper.ZooKeeperMain "$@"
