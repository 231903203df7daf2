"""A Django site in one file: settings, views, URLs."""

import os
import tempfile

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

DATABASE = os.environ.get("DATABASE", os.path.join(tempfile.gettempdir(), "sessions.sqlite3"))

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="only for this example",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
)
django.setup()
call_command("migrate", verbosity=0)


def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"{request.session['visits']} visits, says Django\n")


def visits(request):
    return HttpResponse(f"{request.session.get('visits', 0)} visits, says Django\n")


urlpatterns = [path("visit", visit), path("visits", visits)]
application = get_wsgi_application()
