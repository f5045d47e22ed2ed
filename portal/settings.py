"""Settings of every Berth process. All that differs between installations comes from the environment (see env.py).

Required: BERTH_SECRET_KEY (or BERTH_SECRET_KEY_FILE), DATABASE_URL, BERTH_BROKER_URL. README.md lists the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from portal import env

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = False
SECRET_KEY = env.secret("BERTH_SECRET_KEY")
ALLOWED_HOSTS = env.words("BERTH_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("BERTH_TRUSTED_ORIGINS", "")
# Behind plain HTTP (the demo, a port-forward) a browser would never send back a Secure cookie.
SECURE_COOKIES = env.boolean("BERTH_SECURE_COOKIES", True)
SESSION_COOKIE_SECURE = SECURE_COOKIES
CSRF_COOKIE_SECURE = SECURE_COOKIES
SESSION_COOKIE_SAMESITE = "Lax"
# How many proxies stand before the web process and append to X-Forwarded-For; without one it is not believed.
TRUSTED_PROXIES = env.integer("BERTH_TRUSTED_PROXIES", 0, minimum=0, maximum=10)
# Requests a minute, 0 for no limit: of one token or signed-in person, of one address that is not signed in, and to one
# tenant by all of its people and programs together.
RATE_LIMITS = {
    "caller": env.integer("BERTH_RATE_LIMIT_CALLER", 1200, minimum=0, maximum=1_000_000),
    "address": env.integer("BERTH_RATE_LIMIT_ADDRESS", 600, minimum=0, maximum=1_000_000),
    "tenant": env.integer("BERTH_RATE_LIMIT_TENANT", 6000, minimum=0, maximum=1_000_000),
}
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_HSTS_SECONDS = 31_536_000 if SECURE_COOKIES else 0
CSRF_FAILURE_VIEW = "portal.problems.csrf_failure"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "guardian",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "tenants",
    "provisioning",
    "portal",
]

MIDDLEWARE = [
    "portal.middleware.RequestIdMiddleware",
    "portal.middleware.HealthMiddleware",
    "portal.middleware.ContentSecurityMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
APPEND_SLASH = False

DATABASES = {"default": env.database("DATABASE_URL")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
GUARDIAN_MONKEY_PATCH_USER = False
ANONYMOUS_USER_NAME = None
# For passwords people choose; those Berth makes are random.
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
# The built single-page app: index.html and its assets. Absent until `make frontend` has run.
FRONTEND_DIST = BASE_DIR / "frontend" / "dist"
# WhiteNoise warns about a folder that is not there.
WHITENOISE_ROOT = FRONTEND_DIST if FRONTEND_DIST.is_dir() else None
# Static files are served from the installed packages: there is no collectstatic step that could be forgotten.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
# Vite puts a hash of the content into the names below /assets/: those never change.
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/assets/.+-[\w-]{8}\.\w+$"

TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# The largest body the API reads. The longest sensible request, a cluster with every field, is under 10 KiB.
MAX_BODY_BYTES = 262_144
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["portal.auth.TokenAuthentication", "portal.auth.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["portal.auth.SignedInWithinScope"],
    "DEFAULT_RENDERER_CLASSES": ["portal.api.renderers.FastJsonRenderer"],
    # The Accept header chooses; ?format= is one parameter too many.
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_PARSER_CLASSES": ["portal.api.parsers.JsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "portal.problems.handle_exception",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Berth API",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "DESCRIPTION": (BASE_DIR / "portal" / "api" / "introduction.md").read_text(encoding="utf-8"),
    # Bodies and answers have serializers of their own.
    "COMPONENT_SPLIT_PATCH": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SORT_OPERATIONS": False,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "portal.api.schema.finish"],
    "ENUM_NAME_OVERRIDES": {
        "Phase": "provisioning.models.Phase",
        "OperationState": "provisioning.models.OperationState",
        "Role": "tenants.models.Role",
        "GrantRight": "portal.api.grants.RIGHT_CHOICES",
        "AuditResult": "tenants.models.AuditResult",
        "Effect": "portal.api.engines.EFFECTS",
        "FieldKind": "portal.api.engines.KINDS",
        "StepState": "portal.api.operations.STEP_STATES",
        "TokenScope": "portal.api.tokens.SCOPE_CHOICES",
        "EndpointScope": "portal.api.clusters.ENDPOINT_SCOPES",
        "LedgerEntryKind": "tenants.models.EntryKind",
        "ConditionStatus": "portal.api.clusters.CONDITION_STATES",
        "AlertState": "portal.api.monitoring.ALERT_STATES",
    },
    "TAGS": [
        {"name": "Session", "description": "Who you are, and signing in and out from a browser."},
        {"name": "Tokens", "description": "Bearer tokens for programs."},
        {"name": "Tenants", "description": "The teams you belong to."},
        {"name": "People", "description": "Members, invitations, and clusters shared with people of other tenants."},
        {"name": "Catalogue", "description": "What can be ordered, and where it can run."},
        {"name": "Quota", "description": "What the tenant may use, what holds it, and what an order would take."},
        {"name": "Users", "description": "Who signs in to a cluster, what each may do, and rotation of passwords."},
        {"name": "Clusters", "description": "Order, watch, label and delete clusters, and connect to them."},
        {"name": "Audit", "description": "Who did what, from where, and what was refused."},
        {"name": "Operations", "description": "How a change is going, and what it waits for."},
        {"name": "Administration", "description": "For platform administrators: where clusters can run."},
    ],
}

# Celery. Messages are hints: losing all of them loses no work (provisioning/tasks.py).
CELERY_BROKER_URL = env.text("BERTH_BROKER_URL")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# Tasks of a thread share its database connection (making one takes longer than claiming a cluster): portal/celery.py
# sees to connections that broke or grew old.
CELERY_DB_REUSE_MAX = sys.maxsize
# `expires` keeps beat's messages from piling up while no worker runs.
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "berth.sweep", "schedule": 2.0, "options": {"expires": 2.0}},
    "enforce-quota": {"task": "berth.enforce_quota", "schedule": 60.0, "options": {"expires": 60.0}},
    "prove-quota": {"task": "berth.prove_quota", "schedule": 60.0, "options": {"expires": 60.0}},
    "forget-idempotency-keys": {
        "task": "berth.forget_idempotency_keys",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "forget-audit": {"task": "berth.forget_audit", "schedule": 86_400.0, "options": {"expires": 86_400.0}},
    "discover-targets": {"task": "berth.discover_targets", "schedule": 30.0, "options": {"expires": 30.0}},
}

# Where kubeconfigs of targets are mounted (Kubernetes Secrets in production), one file each: <target>.kubeconfig.
TARGETS_DIR = Path(env.text("BERTH_TARGETS_DIR", "/etc/berth/targets"))
# Where kubeconfigs that administrators send are kept: a Secret, as "namespace/name", that is mounted at TARGETS_DIR; ""
# keeps them as files in TARGETS_DIR itself.
TARGETS_SECRET = env.secret_reference("BERTH_TARGETS_SECRET")
# Replaces the registry host of every image, for installations with a mirror: registry.example.com/mirror.
IMAGE_REGISTRY = env.text("BERTH_IMAGE_REGISTRY", "")
# Where ipreserve keeps its ledger on the targets.
IPRESERVE_NAMESPACE = env.text("BERTH_IPRESERVE_NAMESPACE", "ip-reserve")
# Where alerts about clusters are asked for, with this bearer token if it wants one; "" without monitoring.
ALERTMANAGER_URL = env.address("BERTH_ALERTMANAGER_URL")
ALERTMANAGER_TOKEN = env.optional_secret("BERTH_ALERTMANAGER_TOKEN")
# Where the engines' dashboards are; "" without one.
GRAFANA_URL = env.address("BERTH_GRAFANA_URL")
# Where people sign in besides here; None without one.
OIDC = env.oidc_provider()
# Days a row of the audit is kept, 0 for ever; the database keeps each for a year.
AUDIT_KEEP_DAYS = env.integer("BERTH_AUDIT_KEEP_DAYS", 0, minimum=0, maximum=36_500)
if 0 < AUDIT_KEEP_DAYS < 365:
    raise ImproperlyConfigured(f"BERTH_AUDIT_KEEP_DAYS={AUDIT_KEEP_DAYS} is too small: use 365 or more, or 0 for ever.")
# Seconds an operation may take before it fails with the reason it was waiting for.
OPERATION_DEADLINE_SECONDS = env.integer("BERTH_OPERATION_DEADLINE_SECONDS", 600, minimum=10, maximum=86_400)
# Seconds a worker may hold a cluster without news of it; after that another takes over.
CLAIM_LEASE_SECONDS = env.integer("BERTH_CLAIM_LEASE_SECONDS", 15, minimum=5, maximum=300)

LOGGING_CONFIG = "portal.logs.configure"
LOGGING = {
    "format": env.choice("BERTH_LOG_FORMAT", "json", ("json", "text")),
    "level": env.choice("BERTH_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
