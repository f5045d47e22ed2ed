"""Settings for tools that only read the code (mypy, schema generation): no database or broker is contacted."""

import os

os.environ.setdefault("BERTH_SECRET_KEY", "not a secret: nothing is signed with it")
os.environ.setdefault("DATABASE_URL", "postgresql://nobody@localhost/nothing")
os.environ.setdefault("BERTH_BROKER_URL", "redis://localhost:1/0")

from portal.settings import *  # noqa: F403
