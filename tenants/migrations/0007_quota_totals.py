"""A tenant's totals, filled from what its clusters hold."""

import django.db.models.deletion
from django.db import migrations, models

FILL = """
INSERT INTO tenants_quotatotal (tenant_id, place, resource, used, reserved)
SELECT tenant_id, place, resource, SUM(used), SUM(reserved) FROM tenants_quotahold GROUP BY tenant_id, place, resource
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0006_identities")]
    operations = [
        migrations.CreateModel(
            name="QuotaTotal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("place", models.CharField(max_length=30)),
                ("resource", models.CharField(max_length=270)),
                ("used", models.PositiveBigIntegerField(default=0)),
                ("reserved", models.PositiveBigIntegerField(default=0)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="quota_totals", to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "place", "resource"), name="tenants_quota_total_unique")
                ]
            },
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
