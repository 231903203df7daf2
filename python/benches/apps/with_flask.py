"""A Flask application."""

from flask import Flask

hello = Flask(__name__)


@hello.get("/")
def text():
    return "Hello World!"
