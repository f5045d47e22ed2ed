"""The quota's ledger is not emptied as a whole either: 0002 refuses UPDATE and DELETE, this one TRUNCATE."""

from django.db import migrations

FORWARD = """
CREATE TRIGGER tenants_ledger_keep_table BEFORE TRUNCATE ON tenants_ledgerentry
    FOR EACH STATEMENT EXECUTE FUNCTION berth_append_only();
"""
BACKWARD = "DROP TRIGGER tenants_ledger_keep_table ON tenants_ledgerentry;"


class Migration(migrations.Migration):
    dependencies = [("tenants", "0008_audit_retention")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
