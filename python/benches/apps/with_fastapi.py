"""A FastAPI application with a plain response and a response by a model."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

hello = FastAPI()


class Item(BaseModel):
    name: str
    price: float
    tags: list[str]


@hello.get("/", response_class=PlainTextResponse)
async def text():
    return "Hello World!"


@hello.get("/item")
async def item() -> Item:
    return Item(name="tower", price=1.5, tags=["http", "python"])
