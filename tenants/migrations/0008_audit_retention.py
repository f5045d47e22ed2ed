"""Rows of the audit may be deleted once they are a year old, and not before: the database itself keeps to that.

BERTH_AUDIT_KEEP_DAYS may ask for more than a year, never for less (tenants/audit.py). UPDATE and TRUNCATE stay refused.
Row triggers: a DELETE that also names younger rows fails as a whole.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION berth_audit_keep_young() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.created > now() - interval '365 days' THEN
        RAISE EXCEPTION '% is append-only: rows younger than 365 days stay', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
DROP TRIGGER tenants_audit_keep_rows ON tenants_auditevent;
CREATE TRIGGER tenants_audit_keep_rows BEFORE UPDATE ON tenants_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION berth_audit_append_only();
CREATE TRIGGER tenants_audit_keep_young BEFORE DELETE ON tenants_auditevent
    FOR EACH ROW EXECUTE FUNCTION berth_audit_keep_young();
ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_rows;
ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_young;
"""
BACKWARD = """
DROP TRIGGER tenants_audit_keep_young ON tenants_auditevent;
DROP TRIGGER tenants_audit_keep_rows ON tenants_auditevent;
CREATE TRIGGER tenants_audit_keep_rows BEFORE UPDATE OR DELETE ON tenants_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION berth_audit_append_only();
ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_rows;
DROP FUNCTION berth_audit_keep_young();
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0007_quota_totals")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
