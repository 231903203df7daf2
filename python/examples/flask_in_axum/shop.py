"""A shop. It does not know where it is mounted, nor what serves it."""

import time

from flask import Flask, jsonify, redirect, request, url_for

app = Flask(__name__)
items = ["milk", "bread"]


@app.get("/")
def index():
    return f'<a href="{url_for("list_items")}">{len(items)} items</a>\n'


@app.get("/items")
def list_items():
    return jsonify(items)


@app.post("/items")
def add_item():
    items.append(request.form["name"])
    return redirect(url_for("list_items"))


@app.get("/countdown")
def countdown():
    def lines():
        for number in (3, 2, 1):
            yield f"{number}\n"
            time.sleep(0.1)
        yield "done\n"

    return lines()
