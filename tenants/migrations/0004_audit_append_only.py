"""The audit can only grow: the database itself refuses UPDATE, DELETE and TRUNCATE, whoever asks.

ENABLE ALWAYS: also with session_replication_role = replica. Statement triggers: refused even if no row would match.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION berth_audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER tenants_audit_keep_rows BEFORE UPDATE OR DELETE ON tenants_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION berth_audit_append_only();
CREATE TRIGGER tenants_audit_keep_table BEFORE TRUNCATE ON tenants_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION berth_audit_append_only();
ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_rows;
ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_table;
"""
BACKWARD = """
DROP TRIGGER tenants_audit_keep_table ON tenants_auditevent;
DROP TRIGGER tenants_audit_keep_rows ON tenants_auditevent;
DROP FUNCTION berth_audit_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_audit")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
