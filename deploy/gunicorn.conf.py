"""gunicorn's settings for the web process: gunicorn portal.wsgi:application --config deploy/gunicorn.conf.py

Threads, because a long poll (GET /operations/{id}?wait=60) or a stream (GET /changes) holds one. Each keeps a database
connection, so PostgreSQL must allow workers x threads for web (2 x 32 by default), besides what workers, beat and
watchers use. Behind a TLS proxy set FORWARDED_ALLOW_IPS to the proxy's address.
"""

import gc
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from portal import env
from portal.logs import configuration

bind = os.environ.get("BERTH_BIND", "127.0.0.1:8000")
worker_class = "gthread"
workers = env.integer("BERTH_WEB_WORKERS", 2, minimum=1, maximum=64)
threads = env.integer("BERTH_WEB_THREADS", 32, minimum=2, maximum=256)
keepalive = 30
# Longer than nothing, shorter than a long poll: who is cut off asks again.
graceful_timeout = 5
# The heartbeat file must not wait for a slow disk.
worker_tmp_dir = "/dev/shm"
# The access line is ours (portal/middleware.py): it has the request id, and no query string.
accesslog = None
logconfig_dict = configuration(
    env.choice("BERTH_LOG_FORMAT", "json", ("json", "text")),
    env.choice("BERTH_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
)


def post_worker_init(worker: object) -> None:
    """What was loaded at the start stays for good: searching it for garbage over and over only makes requests wait."""
    gc.collect()
    gc.freeze()
