from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('provisioning', '0012_users'),
    ]

    operations = [
        migrations.AddField(
            model_name='cluster',
            name='loss',
            field=models.JSONField(null=True),
        ),
    ]
