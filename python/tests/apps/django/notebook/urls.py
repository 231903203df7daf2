"""What is where."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    # Django leaves static files to others in production, and calls serving them itself "insecure" (it means slow).
    path("static/<path:path>", serve, {"insecure": True}),
    path("", include("notes.urls")),
]
