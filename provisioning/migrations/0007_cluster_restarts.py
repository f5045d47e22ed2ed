from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("provisioning", "0006_targets")]

    operations = [
        migrations.AddField(
            model_name="cluster",
            name="restarts",
            field=models.PositiveIntegerField(default=0),
        ),
    ]
