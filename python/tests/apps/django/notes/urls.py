"""The URLs that the driver asks for."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index),
    path("hello/<name>", views.hello, name="hello"),
    path("json", views.json_in),
    path("form", views.form),
    path("upload", views.upload),
    path("stream", views.stream),
    path("streamed", views.how_far),
    path("session", views.visits),
    path("cookies", views.cookies),
    path("redirect", views.away),
    path("url", views.url),
    path("download", views.download),
    path("empty", views.empty),
    path("request", views.about),
    path("forbidden", views.forbidden),
    path("boom", views.boom),
    path("notes", views.notes),
    path("events", views.events),
    path("release", views.release),
]
