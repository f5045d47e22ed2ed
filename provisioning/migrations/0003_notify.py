"""Changes of operations and clusters are told to whoever listens (provisioning/operations/waiting.py)."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION berth_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_ARGV[0], NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER berth_notify_operation AFTER INSERT OR UPDATE OF revision, state ON provisioning_operation
    FOR EACH ROW EXECUTE FUNCTION berth_notify('berth_operations');
CREATE TRIGGER berth_notify_cluster AFTER INSERT OR UPDATE OF revision, phase, members, conditions
    ON provisioning_cluster FOR EACH ROW EXECUTE FUNCTION berth_notify('berth_clusters');
"""
BACKWARD = """
DROP TRIGGER berth_notify_cluster ON provisioning_cluster;
DROP TRIGGER berth_notify_operation ON provisioning_operation;
DROP FUNCTION berth_notify();
"""


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0002_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
