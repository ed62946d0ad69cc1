"""The settings of the application; APPLICATION_DATABASE is a name=value list for its database."""

import json
import os

import django
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            **json.loads(os.environ["APPLICATION_DATABASE"]),
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["clips"],
    USE_TZ=True,
)
django.setup()
