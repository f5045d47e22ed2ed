import django.db.models.deletion
import tenants.models
from django.db import migrations, models


# Not even a defect of ours, or somebody at the SQL prompt by accident, rewrites what happened.
FORWARD = """
CREATE FUNCTION berth_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER tenants_ledger_append_only BEFORE UPDATE OR DELETE ON tenants_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION berth_append_only();
"""
BACKWARD = """
DROP TRIGGER tenants_ledger_append_only ON tenants_ledgerentry;
DROP FUNCTION berth_append_only();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='LedgerEntry',
            fields=[
                ('id', models.CharField(default=tenants.models.new_entry_id, editable=False, max_length=40, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('reserve', 'Reserve'), ('commit', 'Commit'), ('release', 'Release')], max_length=16)),
                ('place', models.CharField(max_length=30)),
                ('holder', models.CharField(db_index=True, max_length=40)),
                ('cause', models.CharField(max_length=40)),
                ('resource', models.CharField(max_length=270)),
                ('used_change', models.BigIntegerField(default=0)),
                ('reserved_change', models.BigIntegerField(default=0)),
                ('created', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='quota_entries', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='QuotaFinding',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.CharField(max_length=30)),
                ('holder', models.CharField(blank=True, default='', max_length=40)),
                ('resource', models.CharField(max_length=270)),
                ('ledger', models.BigIntegerField()),
                ('observed', models.BigIntegerField()),
                ('note', models.TextField(blank=True, default='')),
                ('first_seen', models.DateTimeField(auto_now_add=True)),
                ('last_seen', models.DateTimeField()),
                ('ended', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='quota_findings', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('ended', None)), fields=('tenant', 'place', 'holder', 'resource'), name='tenants_quota_finding_one_open')],
            },
        ),
        migrations.CreateModel(
            name='QuotaHold',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.CharField(max_length=30)),
                ('holder', models.CharField(max_length=40)),
                ('resource', models.CharField(max_length=270)),
                ('used', models.PositiveBigIntegerField(default=0)),
                ('reserved', models.PositiveBigIntegerField(default=0)),
                ('used_by', models.CharField(blank=True, default='', max_length=40)),
                ('reserved_by', models.CharField(blank=True, default='', max_length=40)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='quota_holds', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'holder'], name='tenants_quota_hold_tenant')],
                'constraints': [models.UniqueConstraint(fields=('holder', 'resource'), name='tenants_quota_hold_unique')],
            },
        ),
        migrations.CreateModel(
            name='QuotaLimit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.CharField(blank=True, default='', max_length=30)),
                ('resource', models.CharField(max_length=270)),
                ('limit', models.PositiveBigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='quota_limits', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'place', 'resource'), name='tenants_quota_limit_unique')],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
