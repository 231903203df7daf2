"""Django's WSGI entry point."""

import os
from wsgiref.validate import validator

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notebook.settings")

application = get_wsgi_application()
validated = validator(application)
