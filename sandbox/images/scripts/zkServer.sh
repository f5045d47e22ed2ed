#!/bin/sh
# Starts a ZooKeeper server in the foreground, or prints its version. In a container nothing else is of use.
set -e
home=@HOME@
action=${1:-start-foreground}
[ $# -eq 0 ] || shift
conf=${ZOOCFGDIR:-/conf}
classpath="$home/lib/*:$conf${CLASSPATH:+:$CLASSPATH}"
if [ -n "${ZK_SERVER_HEAP:-}" ]; then SERVER_JVMFLAGS="-Xmx${ZK_SERVER_HEAP}m ${SERVER_JVMFLAGS:-}"; fi
if [ -f "$conf/java.env" ]; then . "$conf/java.env"; fi
case "$action" in
    start-foreground)
        # A name without a slash is looked for in the configuration folder, as everywhere in ZooKeeper.
        config=${1:-${ZOOCFG:-zoo.cfg}}
        case "$config" in */*) ;; *) config="$conf/$config" ;; esac
        # Flags are lists of words: they must split.
        # shellcheck disable=SC2086
        exec java -Dzookeeper.log.dir="${ZOO_LOG_DIR:-/logs}" -XX:+HeapDumpOnOutOfMemoryError \
            -XX:OnOutOfMemoryError='kill -9 %p' -cp "$classpath" ${JVMFLAGS:-} ${SERVER_JVMFLAGS:-} \
            org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
        ;;
    version) exec java -cp "$classpath" org.apache.zookeeper.version.VersionInfoMain ;;
    *)
        echo "zkServer.sh: '$action' is not offered here: use start-foreground [config] or version" >&2
        exit 64
        ;;
esac
