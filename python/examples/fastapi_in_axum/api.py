"""An API. It does not know where it is mounted, nor what serves it."""

import asyncio
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app):
    app.state.greeting = "hello"
    yield
    print("the API is closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/square/{number}")
async def square(number: int):
    return {"number": number, "square": number * number}


@app.get("/clock")
async def clock():
    async def lines():
        while True:
            yield f"{time.strftime('%X')}\n"
            await asyncio.sleep(1)

    return StreamingResponse(lines(), media_type="text/plain")


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text(app.state.greeting)
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
