from django.apps import AppConfig

from portal import checks


class PortalConfig(AppConfig):
    name = "portal"

    def ready(self) -> None:
        # Importing the module registered its checks; say so, or the import looks unused.
        assert checks.operator_mistakes
